"""The process: listen at once, load beside it, answer when ready."""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker import folder
from worker.arguments import Arguments, parse

if TYPE_CHECKING:
    from worker.served import Served

Load = Callable[[Arguments, dict[str, Any]], "Served"]
"""Loads what is served, from the command line and the checked folder's `config.json`."""

_KEEP_ALIVE_S: Final = 600
"""The gateway keeps its connections; one that is closed just as a request is written would be a failed request."""
_QUIET: Final = {
    # No network is there to be asked, no home directory to be written, and nobody to look at a progress bar.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HOME": "/tmp/hf",  # noqa: S108 - the container's own tmpfs
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/torch",  # noqa: S108
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that wait for each other sleep. By default they spin, and where the cores are busy that is fatal: 3 tokens a second
    # instead of 230, with two threads on two busy cores.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def main(argv: Sequence[str], *, load: Load | None = None) -> int:
    """
    Serve until told to end; a model that cannot be loaded ends the process with status 1.

    Args:
        argv: the command line.
        load: loads what is served, if that is not a checkpoint by transformers.

    """
    begun_s = time.monotonic()
    arguments = parse(argv)
    os.umask(0o007)
    os.environ.update(_QUIET, OMP_NUM_THREADS=str(arguments.threads))
    loading = _begin_loading(arguments, load or _load)
    # Imported while the other thread imports torch.
    import uvicorn  # noqa: PLC0415

    from worker import app, runner  # noqa: PLC0415

    computing = runner.Runner(parallel=arguments.parallel, surroundings=_surroundings)
    service = app.Service(arguments=arguments, runner=computing)
    config = uvicorn.Config(
        app.build(service),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)

    def loaded(outcome: "Future[Served]") -> None:
        error = outcome.exception()
        if error is not None:
            _log("load.failed", reason=str(error), kind=type(error).__name__)
            server.should_exit = True
            return
        computing.start()
        service.served = outcome.result()
        _say_ready(main=begun_s, tensors=time.monotonic())
        _log("ready", model=arguments.model_name, took_s=round(time.monotonic() - begun_s, 3), device=service.served.device)

    loading.add_done_callback(loaded)
    server.run(sockets=[_listen(arguments.socket)])
    return 1 if loading.done() and loading.exception() else 0


def _begin_loading(arguments: Arguments, load: Load) -> "Future[Served]":
    outcome: Future[Served] = Future()

    def loads() -> None:
        try:
            outcome.set_result(load(arguments, folder.check(arguments.model)))
        except BaseException as exc:  # noqa: BLE001 - told to whoever holds the outcome
            outcome.set_exception(exc)

    threading.Thread(target=loads, name="load", daemon=True).start()
    return outcome


def _load(arguments: Arguments, config: dict[str, Any]) -> "Served":
    # Torch and transformers come with these; a folder that is refused is told before they are imported.
    from worker import lean  # noqa: PLC0415

    lean.prepare()
    from worker import loading  # noqa: PLC0415

    return loading.load(arguments, config)


def _surroundings() -> AbstractContextManager[object]:
    import torch  # noqa: PLC0415 - loaded by now

    surroundings: AbstractContextManager[object] = torch.inference_mode()
    return surroundings


def _listen(path: Path) -> socket.socket:
    """Bind the socket with the umask's mode; what a killed worker left behind is in the way and of no use."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()  # who comes between our word that we are ready and the first accept waits, and is not turned away
    return listening


def _say_ready(**marks: float) -> None:
    """Tell whoever started us, by the sd_notify protocol, that we answer and when what was done; it may be that nobody hears."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        text = " ".join(f"{name}:{at_s:.6f}" for name, at_s in {**marks, "ready": time.monotonic()}.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaking:
            speaking.settimeout(0)
            speaking.sendto(f"READY=1\nX_WINDLASS_MARKS={text}\n".encode(), address)


def _log(event: str, **keys: object) -> None:
    sys.stderr.write(json.dumps({"event": event, **keys}) + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # A thread may still be inside torch; taking the interpreter apart under it would end in a crash instead of this status.
    os._exit(status)
