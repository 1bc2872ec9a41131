"""How a start is laid out, and the FIFO at which an engine waits."""

import os
import threading
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from controller.spec import Mount, WorkerSpec
from controller.store import workdirs
from tests.core.world import model_spec, worker_spec


@pytest.fixture
def spec(tmp_path: Path) -> WorkerSpec:
    """Describe a worker whose run directory is a folder of the test's."""
    run = PurePosixPath(tmp_path / "run")
    mount = Mount(source=run, target=PurePosixPath("/run/worker"), read_only=False)
    return replace(worker_spec(model_spec("a")), mounts=(mount,), socket=run / "worker.sock")


def wait_at(hold: Path) -> threading.Thread:
    """Wait as a worker's entry point does: open for reading, and go on as soon as that is through or there is no FIFO."""

    def wait() -> None:
        try:
            os.close(os.open(hold, os.O_RDONLY))
        except FileNotFoundError:
            return

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    return waiting


def test_a_plain_start_waits_for_nothing(spec: WorkerSpec) -> None:
    """Nothing is left of a start before that was laid out otherwise."""
    workdirs.prepare(spec, held=True, read_ahead=True)
    workdirs.prepare(spec)

    assert [] == list(Path(spec.socket).parent.iterdir())
    assert not workdirs.is_held(spec)


@pytest.mark.parametrize("read_ahead", [False, True])
def test_who_waits_goes_on_when_it_is_let_go(spec: WorkerSpec, read_ahead: bool) -> None:
    """It waits until then, and what it is to read is laid out before it goes on."""
    workdirs.prepare(spec, held=True)
    waiting = wait_at(Path(spec.socket).with_name("hold"))
    waiting.join(0.1)

    assert waiting.is_alive()
    assert workdirs.is_held(spec)

    workdirs.let_go(spec, read_ahead=read_ahead)
    waiting.join(5)

    assert not waiting.is_alive()
    assert not workdirs.is_held(spec)
    assert read_ahead is Path(spec.socket).with_name("read_ahead").exists()


def test_who_comes_after_it_was_let_go_waits_for_nothing(spec: WorkerSpec) -> None:
    """A container may take longer to start than its room takes to become free."""
    workdirs.prepare(spec, held=True)
    workdirs.let_go(spec, read_ahead=False)
    workdirs.let_go(spec, read_ahead=False)
    late = wait_at(Path(spec.socket).with_name("hold"))
    late.join(5)

    assert not late.is_alive()
