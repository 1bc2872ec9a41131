"""The verbs, run as a user runs them, against a gateway and a controller that answer from a list."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from controller import __version__, cli, wire
from controller.errors import AnswerError, ConfigError, EngineError, Reason, UnreachableError
from controller.ops import survey
from controller.ops.check.values import Port
from controller.ops.client import Api

MODEL = {
    "name": "mini",
    "state": "resident",
    "engine": "llama-cpp",
    "tier": "small",
    "tags": ["code"],
    "pinned": True,
    "priority": 0,
    "footprint_bytes": 64 * 2**20,
    "footprint_source": "measured",
    "weights_bytes": 2**20,
    "drift": None,
    "context_tokens": 2048,
    "parallel": 2,
    "replicas": 3,
    "replicas_ready": 1,
    "parameters": 4_000_000,
    "load_s": 0.9,
    "tokens_per_s": 120.25,
    "requests": 7,
    "failures": 0,
    "api_paths": ["/v1/chat/completions"],
    "engine_choice": None,
    "reason": None,
}
CHOICE = {
    "reason": "tensorrt-edge-llm could not be built here: out of memory",
    "fell_back": True,
    "successor": None,
    "others": [{"engine": "transformers", "reason": "stands behind llama-cpp on this box"}],
}
BROKEN = MODEL | {
    "name": "broken",
    "state": "failed",
    "pinned": False,
    "parallel": 1,
    "replicas": 1,
    "replicas_ready": 0,
    "tags": [],
    "tokens_per_s": None,
    "footprint_source": "estimate",
    "reason": "out_of_memory: at its limit",
    "drift": {"why": "it holds 9 MiB privately", "private_bytes": 9, "allowed_bytes": 1, "thrashes": False},
}
STATUS = {
    "version": "1.2.3",
    "uptime_s": 7800.0,
    "state": "degraded",
    "reasons": ["broken keeps failing"],
    "memory": {
        "total_bytes": 8 * 2**30,
        "available_bytes": 3 * 2**30,
        "budget_bytes": 7 * 2**30,
        "committed_bytes": 2**30,
        "pressure_some_avg10": 1.5,
    },
    "thermal": {"zones": [{"name": "soc", "celsius": 48.0}, {"name": "cpu", "celsius": 51.4}]},
    "power": {"rails": [{"name": "VDD_IN", "watts": 7.25}]},
    "pace": {"factor": 0.5, "throttled": True, "reasons": ["it is hot"], "mode": "25W", "strongest_mode": "MAXN_SUPER"},
    "device": {
        "architecture": "aarch64",
        "family": "orin",
        "board": "NVIDIA Jetson Orin Nano",
        "module": "p3767-0005",
        "l4t": "39.2.0",
        "jetpack": "7.2",
        "driver": "",
        "cuda": "13.2",
        "tensorrt": "10.16.2.10",
        "gpus": [{"index": 0, "name": "Orin", "sm": "87", "memory_bytes": None}],
        "access": "runtime",
        "gpu_memory_charged": True,
        "fingerprint": "sm87",
    },
    "disk": {
        "home_total_bytes": 100 * 2**30,
        "home_free_bytes": 40 * 2**30,
        "block": "nvme0n1p1",
        "link": {"width": 2, "most_width": 4, "speed": "8.0 GT/s PCIe", "most_speed": "16.0 GT/s PCIe"},
        "read_bytes_per_s": 1610612736,
        "measured_at": "2026-09-01T10:00:00+00:00",
    },
    "cards": [
        {
            "index": 0,
            "name": "RTX",
            "total_bytes": 8 * 2**30,
            "configured_budget_bytes": 7 * 2**30,
            "budget_bytes": 7 * 2**30,
            "committed_bytes": 3 * 2**30,
            "held_bytes": 3 * 2**30,
            "free_bytes": 4 * 2**30,
            "workers": [{"model": "mini[x]", "bytes": 3 * 2**30}],
        }
    ],
    "workers": [
        {
            "model": "zero",
            "status": "stopped",
            "memory_bytes": 2**30,
            "gpus": [],
            "leases": 0,
            "run_s": None,
            "anon_bytes": None,
            "file_bytes": None,
            "gpu_bytes": None,
            "exit": {"cause": "out_of_memory", "code": 137, "detail": ""},
        },
        {
            "model": "mini[x]",
            "status": "ready",
            "memory_bytes": 2**30,
            "gpus": [],
            "leases": 2,
            "run_s": 65.0,
            "anon_bytes": 3 * 2**20,
            "file_bytes": 2**20,
            "gpu_bytes": 2**29,
            "exit": None,
        },
    ],
    "queue": [
        {
            "id": "g1-7",
            "model": "zero",
            "position": 1,
            "eta_s": 2.0,
            "bound_s": 21.0,
            "waiting_s": 1.0,
            "priority": "batch",
            "loading": False,
        }
    ],
    "transitions": [{"model": "zero", "action": "start", "seconds": 0.4}],
}
IDLE = STATUS | {
    "state": "ok",
    "reasons": [],
    "memory": {**STATUS["memory"], "pressure_some_avg10": None},  # type: ignore[dict-item]
    "thermal": {"zones": []},
    "power": {"rails": []},
    "pace": {"factor": 1.0, "throttled": False, "reasons": [], "mode": None, "strongest_mode": None},
    "device": {**STATUS["device"], "board": "", "gpus": []},  # type: ignore[dict-item]
    "disk": {**STATUS["disk"], "link": None, "read_bytes_per_s": None, "measured_at": None},  # type: ignore[dict-item]
    "cards": [],
    "workers": [],
    "queue": [],
    "transitions": [],
}
PLAN = {
    "model": "large",
    "fits": True,
    "resident": False,
    "footprint_bytes": 3 * 2**30,
    "footprint_source": "estimate",
    "budget_bytes": 7 * 2**30,
    "free_bytes": 2**30,
    "evict": [{"model": "mini", "bytes": 2**30, "why": "nobody asked for it in 10 min"}],
    "answer": "start",
    "reason": "it fits once the idle models named are gone",
    "load_s": 4.2,
    "engine": "llama-cpp",
    "engine_choice": None,
    "gpus": [{"index": 1, "bytes": 2**31, "budget_bytes": 6 * 2**30, "free_bytes": 2**30}],
}


def error(message: str, code: str | None = "unknown_model") -> dict[str, object]:
    """Make the body of an error."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


@dataclass
class Gateway:
    """Answers from a list, and remembers what it was asked."""

    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, Any, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """Run a gateway that answers from a list, at WINDLASS_URL."""
    state = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            state.asked.append((f"{self.command} {self.path}", body, self.headers.get("Authorization")))
            status, answer = state.answers.get(f"{self.command} {self.path}", (404, error("no such path", None)))
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 - the standard library's name

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("WINDLASS_URL", state.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@dataclass
class Controller:
    """Answers one call with these messages, and remembers it."""

    replies: list[wire.Message | bytes] = field(default_factory=list)
    calls: list[wire.Message] = field(default_factory=list)


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Controller]:
    """Run a controller's socket that answers from a list, at WINDLASS_RUN."""
    monkeypatch.setenv("WINDLASS_RUN", str(tmp_path))
    monkeypatch.delenv("WINDLASS_CONFIG", raising=False)
    state = Controller()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "controller.sock"))
        listener.listen(1)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                connection.sendall(wire.encode(wire.Welcome(version="1", instance="x")))
                connection.sendall(wire.encode(wire.Catalog(models=(), keys=())))
                state.calls.append(wire.decode_request(lines.readline()))
                for reply in state.replies:
                    connection.sendall(reply if isinstance(reply, bytes) else wire.encode(reply))

        thread = threading.Thread(target=answer)
        thread.start()
        yield state
        if not state.calls:  # nobody called: do so, that the thread may end
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(tmp_path / "controller.sock"))
                caller.sendall(wire.encode(wire.Release(id="nobody")))
        thread.join()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Give a function that runs one verb and returns exit code, output and errors."""

    def run(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["windlass", *argv])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code if isinstance(ended.value.code, int) else 0, out, err

    held_back = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield run
    signal.pthread_sigmask(signal.SIG_SETMASK, held_back)  # a gateway that did not come to serve has left some


def squeezed(text: str) -> list[str]:
    """Return lines with single spaces, as columns are as wide as they have to be."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_ps_shows_workers_and_the_queue(gateway: Gateway, run: Run) -> None:
    """Who runs comes first, and a name that looks like markup is printed as it is."""
    gateway.answers["GET /status"] = (200, STATUS)

    assert run("ps")[0] == 0
    assert squeezed(run("ps")[1]) == [
        "model status budget private files on GPU leases up last exit",
        "mini[x] ready 1 GiB 3 MiB 1 MiB 512 MiB 2 1 min 05 s -",
        "zero stopped 1 GiB - - - 0 - out of memory (137)",
        "",
        "place model waiting likely in at most priority request",
        "1 zero 1.0 s 2.0 s 21.0 s batch g1-7",
    ]


def test_ps_shows_no_queue_when_nobody_waits(gateway: Gateway, run: Run) -> None:
    """An empty table says nothing."""
    gateway.answers["GET /status"] = (200, IDLE)

    assert squeezed(run("ps")[1]) == ["model status budget private files on GPU leases up last exit"]


def test_models_shows_every_model_and_what_is_wrong(gateway: Gateway, run: Run) -> None:
    """Rows for what can be served, sentences for what cannot."""
    problem = {"folder": "Bad", "text": "rename it"}
    gateway.answers["GET /models"] = (200, {"models": [MODEL, BROKEN], "problems": [problem]})
    code, out, _ = run("models")

    assert code == 0
    assert squeezed(out) == [
        "model state engine tier memory context load tok/s asked failed tags",
        "broken failed llama-cpp small 64 MiB (est.) 2048 900 ms - 7 0 -",
        "mini resident 1/3 (pinned) llama-cpp small 64 MiB 2048 x 2 900 ms 120.2 7 0 code",
        "failed: broken: out_of_memory: at its limit",
        "degraded: broken: it holds 9 MiB privately",
        "error: Bad: rename it",
    ]


def test_status_says_how_the_box_is(gateway: Gateway, run: Run) -> None:
    """A few lines, the state and its reasons first."""
    gateway.answers["GET /status"] = (200, STATUS)
    code, out, _ = run("status")

    assert code == 0
    assert squeezed(out) == [
        "windlass 1.2.3, degraded, up 2 h 10 min",
        "broken keeps failing",
        "memory 1 GiB of a budget of 7 GiB committed; 3 GiB of 8 GiB available; pressure 1.5 %",
        "gpu 0 3 GiB of a budget of 7 GiB committed; mini[x] 3 GiB",
        "box NVIDIA Jetson Orin Nano, JetPack 7.2 (L4T 39.2.0), CUDA 13.2",
        "gpu Orin (SM 87), by runtime; its memory counts against a container's limit",
        "disk 40 GiB of 100 GiB free, 2 of 4 lanes at 8.0 GT/s PCIe, reads 1.5 GiB/s (measured 2026-09-01)",
        "heat cpu 51 degrees C",
        "power VDD_IN 7.2 W",
        "pace 50% of full speed, mode 25W",
        "it is hot",
        "workers 1 ready, 1 stopped",
        "queue 1 waiting; the oldest for 1.0 s, for zero, and 21.0 s more at most",
        "start of zero for 400 ms",
    ]


def test_status_leaves_out_what_the_box_does_not_tell(gateway: Gateway, run: Run) -> None:
    """No sensors, no lines."""
    gateway.answers["GET /status"] = (200, IDLE)

    assert squeezed(run("status")[1]) == [
        "windlass 1.2.3, ok, up 2 h 10 min",
        "memory 1 GiB of a budget of 7 GiB committed; 3 GiB of 8 GiB available; pressure unknown",
        "disk 40 GiB of 100 GiB free",
        "workers none",
        "queue empty",
    ]


def test_status_says_what_the_gpus_are(gateway: Gateway, run: Run) -> None:
    """Cards have memory of their own; and a GPU that no container can use is said to be one."""
    gpus = [
        {"index": 0, "name": "RTX 4090", "sm": "89", "memory_bytes": 24 * 2**30},
        {"index": 1, "name": "RTX 3060", "sm": "86", "memory_bytes": 12 * 2**30},
    ]
    cards = {"board": "", "l4t": "", "jetpack": "", "driver": "580.1", "cuda": "", "architecture": "x86_64", "gpus": gpus}
    for changes in ({**cards, "access": "cdi"}, {"access": "none", "gpu_memory_charged": None}, {"gpus": []}):
        gateway.answers["GET /status"] = (200, IDLE | {"device": {**STATUS["device"], **changes}})  # type: ignore[dict-item]
        shown = [line for line in squeezed(run("status")[1]) if line.startswith(("box", "gpu"))]
        if "board" in changes:
            assert [
                "box x86_64, driver 580.1, CUDA unknown",
                "gpu RTX 4090 (SM 89, 24 GiB), RTX 3060 (SM 86, 12 GiB), by cdi",
            ] == shown
        elif "access" in changes:
            assert "gpu Orin (SM 87), no way to it for containers: see `windlass check`" == shown[1]
        else:
            assert ["box NVIDIA Jetson Orin Nano"] == shown


def test_a_failing_box_fails_the_status_verb(gateway: Gateway, run: Run) -> None:
    """A script need not read the text."""
    gateway.answers["GET /status"] = (200, IDLE | {"state": "failing"})

    assert run("status")[0] == cli.EXIT_FAILED
    assert run("status", "--json")[0] == cli.EXIT_FAILED


def test_plan_says_what_would_happen(gateway: Gateway, run: Run) -> None:
    """What it needs, who leaves and why."""
    gateway.answers["GET /plan/large"] = (200, PLAN)
    code, out, _ = run("plan", "large")

    assert code == 0
    assert squeezed(out) == [
        "large: it starts at once",
        "needs 3 GiB (estimate)",
        "budget 7 GiB, of which 1 GiB free",
        "gpu 1 2 GiB of 6 GiB, of which 1 GiB free",
        "evicts mini (1 GiB): nobody asked for it in 10 min",
        "load about 4.2 s",
        "because it fits once the idle models named are gone",
    ]


def test_plan_says_why_it_is_this_engine(gateway: Gateway, run: Run) -> None:
    """Where the engine was left to us: the reason, and what speaks against each of the others."""
    gateway.answers["GET /plan/large"] = (200, PLAN | {"engine_choice": CHOICE})

    assert squeezed(run("plan", "large")[1])[-2:] == [
        "engine llama-cpp: tensorrt-edge-llm could not be built here: out of memory",
        "not transformers: stands behind llama-cpp on this box",
    ]


def test_models_says_which_engine_has_failed(gateway: Gateway, run: Run) -> None:
    """A model that fell back gets a line of its own; one that did not gets none."""
    models = [MODEL | {"engine_choice": CHOICE}, MODEL | {"name": "other", "engine_choice": CHOICE | {"fell_back": False}}]
    gateway.answers["GET /models"] = (200, {"models": models, "problems": []})
    lines = squeezed(run("models")[1])

    assert "degraded: mini: it runs by llama-cpp, since tensorrt-edge-llm could not be built here: out of memory" in lines
    assert not any("other: it runs" in line for line in lines)


def test_plan_of_a_resident_model_has_nothing_to_do(gateway: Gateway, run: Run) -> None:
    """No load, no eviction."""
    gateway.answers["GET /plan/large"] = (200, PLAN | {"resident": True, "evict": []})

    assert squeezed(run("plan", "large")[1])[0] == "large is resident; nothing has to happen"


def test_plan_of_a_model_that_never_fits_is_a_refusal(gateway: Gateway, run: Run) -> None:
    """The exit code says so, too."""
    gateway.answers["GET /plan/large"] = (200, PLAN | {"answer": "refuse", "fits": False})
    code, out, _ = run("plan", "large")

    assert code == cli.EXIT_REFUSED
    assert squeezed(out)[0] == "large: it is refused"


@pytest.mark.parametrize("name", ["../etc", "a b", "a/b?c=d#e", "ä", ".."])
def test_a_strange_name_stays_one_segment_of_the_path(name: str, gateway: Gateway, run: Run) -> None:
    """Whatever is typed, the gateway is asked for exactly that name."""
    run("plan", name)
    (path, _, _) = gateway.asked[0]

    assert re.fullmatch(r"GET /plan/[^/?#]+", path)


def test_logs_are_printed_as_they_are(gateway: Gateway, run: Run) -> None:
    """No markup, no table."""
    gateway.answers["GET /models/mini/logs?tail=2"] = (200, {"model": "mini", "lines": ["[bold]one", "two"]})

    assert run("logs", "mini", "--tail", "2") == (0, "[bold]one\ntwo\n", "")
    assert json.loads(run("logs", "mini", "--tail", "2", "--json")[1])["model"] == "mini"


def test_load_and_unload_say_what_they_did(gateway: Gateway, run: Run) -> None:
    """State, time and bytes; the options travel in the body."""
    done = {"model": "mini", "state": "resident", "seconds": 0.9, "bytes": 64 * 2**20}
    gateway.answers["POST /load_model"] = (200, done)
    gateway.answers["POST /unload_model"] = (200, {"model": "mini", "state": "stopped", "seconds": 0.0})

    assert run("load", "mini") == (0, "mini is resident after 900 ms, 64 MiB\n", "")
    assert run("load", "mini", "--no-wait")[0] == 0
    assert run("unload", "mini", "--force") == (0, "mini is stopped\n", "")
    assert [body for _, body, _ in gateway.asked] == [
        {"model": "mini", "wait": True},
        {"model": "mini", "wait": False},
        {"model": "mini", "force": True},
    ]


def test_a_load_that_failed_fails(gateway: Gateway, run: Run) -> None:
    """The model's state is the outcome."""
    gateway.answers["POST /load_model"] = (200, {"model": "mini", "state": "failed", "seconds": 3.0, "bytes": 0})

    assert run("load", "mini")[0] == cli.EXIT_FAILED


def events(*parts: object) -> bytes:
    """Make a stream of events."""
    return b": hello\n\n" + b"".join(b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts)


def word(text: str | None) -> dict[str, object]:
    """Make one event of an answer."""
    return {"choices": [{"delta": {"content": text}}]}


def test_ask_prints_the_answer_as_it_comes(gateway: Gateway, run: Run) -> None:
    """Words of the stream are put together; what is no word is passed over."""
    stream = events(word("Once "), {"choices": []}, word(None), word("upon")) + b"data: {broken\n\ndata: [DONE]\n\ndata: {}\n\n"
    gateway.answers["POST /v1/chat/completions"] = (200, stream)

    assert run("ask", "mini", "Tell", "--max-tokens", "9") == (0, "Once upon\n", "")
    assert gateway.asked[0][1] == {
        "model": "mini",
        "messages": [{"role": "user", "content": "Tell"}],
        "max_tokens": 9,
        "stream": True,
    }


def test_ask_ends_with_an_error_that_comes_mid_stream(gateway: Gateway, run: Run) -> None:
    """Half an answer is not a good one."""
    gateway.answers["POST /v1/chat/completions"] = (200, events(word("Once "), error("the worker was killed", "worker_failed")))
    code, out, err = run("ask", "mini", "Tell")

    assert (code, out) == (cli.EXIT_FAILED, "Once ")
    assert err == "windlass: the worker was killed\n"


def test_ask_is_refused_like_everything_else(gateway: Gateway, run: Run) -> None:
    """An unknown model is a refusal before the first word."""
    gateway.answers["POST /v1/chat/completions"] = (404, error("no model is named 'mino'; did you mean mini?"))

    assert run("ask", "mino", "Tell") == (cli.EXIT_REFUSED, "", "windlass: no model is named 'mino'; did you mean mini?\n")


@pytest.mark.parametrize("verb", ["ps", "models", "status"])
def test_json_is_the_body_as_it_came(verb: str, gateway: Gateway, run: Run) -> None:
    """Programs get everything, unchanged."""
    bodies: Mapping[str, Any] = {"GET /status": STATUS, "GET /models": {"models": [MODEL], "problems": []}}
    gateway.answers.update({path: (200, body) for path, body in bodies.items()})
    code, out, _ = run(verb, "--json")

    assert code == 0
    assert json.loads(out) in bodies.values()


def test_the_key_is_sent_and_never_shown(gateway: Gateway, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """WINDLASS_API_KEY goes into the header alone."""
    monkeypatch.setenv("WINDLASS_API_KEY", "wl_secret")
    gateway.answers["GET /status"] = (401, error("this key is unknown", "invalid_api_key"))
    code, out, err = run("ps")

    assert gateway.asked[0][2] == "Bearer wl_secret"
    assert code == cli.EXIT_REFUSED
    assert "wl_secret" not in out + err


ODD_ANSWERS = {
    "refused": (409, error("mini is pinned"), cli.EXIT_REFUSED, "mini is pinned"),
    "not now": (503, error("starting"), cli.EXIT_REFUSED, "starting"),
    "failed": (500, error("a bug"), cli.EXIT_FAILED, "a bug"),
    "no body": (502, b"", cli.EXIT_FAILED, "answered 502: nothing more"),
    "a page": (404, b"<html>nginx</html>", cli.EXIT_REFUSED, "answered 404: <html>nginx</html>"),
    "an odd error": (400, {"error": "text"}, cli.EXIT_REFUSED, "answered 400"),
    "no JSON": (200, b"hello", cli.EXIT_FAILED, "is it Windlass?"),
    "another shape": (200, {"workers": 7}, cli.EXIT_FAILED, "another shape"),
    "no object": (200, [], cli.EXIT_FAILED, "another shape"),
}


@pytest.mark.parametrize("odd", ODD_ANSWERS.values(), ids=ODD_ANSWERS.keys())
def test_a_bad_answer_is_one_sentence_and_an_exit_code(odd: tuple[int, object, int, str], gateway: Gateway, run: Run) -> None:
    """Never a traceback, whatever the other side says."""
    status, body, code, text = odd
    gateway.answers["GET /status"] = (status, body)
    ended, out, err = run("ps")

    assert (ended, out) == (code, "")
    assert err.startswith("windlass: ")
    assert text in err


@pytest.mark.parametrize(
    "verb", [("ps",), ("models",), ("status",), ("plan", "m"), ("logs", "m"), ("load", "m"), ("unload", "m"), ("ask", "m", "p")]
)
def test_without_a_gateway_every_verb_says_so(verb: tuple[str, ...], run: Run) -> None:
    """Exit code 3, the address, and what to do."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        code, out, err = run(*verb, "--url", url)

    assert (code, out) == (cli.EXIT_UNREACHABLE, "")
    assert f"no gateway answers at {url}" in err
    assert "make run" in err


@pytest.mark.parametrize("url", ["box:8000", "ftp://box", "http://", "http://box:port", "http://[::1"])
def test_an_address_that_is_none_is_told(url: str, run: Run) -> None:
    """With the form of a good one."""
    code, _, err = run("ps", "--url", url)

    assert code == cli.EXIT_UNREACHABLE
    assert "WINDLASS_URL" in err


def test_an_answer_that_breaks_off_is_told(run: Run) -> None:
    """A connection that closes in the middle is the other side's end, not ours."""
    for head in (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"nonsense\r\n", b""):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            thread = threading.Thread(target=answer_once, args=(listener, head))
            thread.start()
            code, _, err = run("ps", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
            thread.join()

        assert code == cli.EXIT_UNREACHABLE
        assert err.startswith("windlass: ")


def answer_once(listener: socket.socket, data: bytes) -> None:
    """Read a request, send *data* and hang up."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(data)


@pytest.mark.parametrize(
    "argv", [("nonesuch",), ("plan",), ("logs", "m", "--tail", "0"), ("ps", "--colour"), ("keys", "create", "--scope", "root")]
)
def test_a_wrong_command_line_is_2(argv: tuple[str, ...], run: Run) -> None:
    """Before anybody is asked."""
    assert run(*argv)[0] == cli.EXIT_USAGE


def test_a_wrong_configuration_is_2(run: Run, tmp_path: Path) -> None:
    """Verbs that read it list every problem."""
    file = tmp_path / "appliance.toml"
    file.write_text("colour = 1\nshape = 2\n", encoding="utf-8")
    for verb in (("keys", "list"), ("serve",), ("gateway",)):
        code, _, err = run(*verb, "--config", str(file))

        assert code == cli.EXIT_USAGE
        assert "colour" in err
        assert "shape" in err


def test_help_documents_the_exit_codes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a script needs to know stands where it is looked for."""
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("--help")

    assert code == 0
    for text in ("Exit codes", "3 the gateway or the controller cannot be reached", "4 it was refused", "WINDLASS_URL"):
        assert text in out


def test_version_is_the_packages(run: Run) -> None:
    """For people and for programs."""
    assert run("version")[1] == f"windlass {__version__}\n"
    assert json.loads(run("version", "--json")[1]) == {"version": __version__}


def test_a_key_is_made_and_its_secret_printed_alone(controller: Controller, run: Run) -> None:
    """Standard output has the secret and nothing else, so that it can be piped."""
    body = {
        "id": "k1",
        "name": "",
        "scopes": ["inference"],
        "rate_limit_per_min": 60,
        "created_at": "2026",
        "revoked_at": None,
        "secret": "wl_abc",
    }
    controller.replies = [wire.Result(id="somebody-else", body=1), wire.Result(id="cli", body=body)]
    code, out, err = run("keys", "create", "ann", "--rate-limit", "60")

    assert (code, out) == (0, "wl_abc\n")
    assert "cannot be shown again" in err
    assert controller.calls == [
        wire.Call(
            id="cli",
            verb="keys.create",
            arguments={"scopes": ["inference"], "name": "ann", "rate_limit_per_min": 60},
        )
    ]


def test_a_key_is_json_for_programs(controller: Controller, run: Run) -> None:
    """With its secret, this once."""
    controller.replies = [wire.Result(id="cli", body={"id": "k1", "secret": "wl_abc"})]

    assert json.loads(run("keys", "create", "--scope", "admin", "--json")[1])["secret"] == "wl_abc"


def test_keys_are_listed(controller: Controller, run: Run) -> None:
    """Oldest first, a limit of its own or the configured one."""
    keys = [
        {"id": "k2", "name": "", "scopes": ["admin"], "rate_limit_per_min": 60, "created_at": "2026-02", "revoked_at": "2026-03"},
        {
            "id": "k1",
            "name": "ann",
            "scopes": ["inference", "admin"],
            "rate_limit_per_min": None,
            "created_at": "2026-01",
            "revoked_at": None,
        },
    ]
    controller.replies = [wire.Result(id="cli", body={"keys": keys})]

    assert squeezed(run("keys", "list")[1]) == [
        "id name scopes requests a minute made revoked",
        "k1 ann inference, admin as configured 2026-01 -",
        "k2 - admin 60 2026-02 2026-03",
    ]


def test_a_key_is_revoked(controller: Controller, run: Run) -> None:
    """By its id."""
    controller.replies = [wire.Result(id="cli", body={"id": "k1", "revoked_at": "2026"})]

    assert run("keys", "revoke", "k1") == (0, "k1 is revoked\n", "")


def test_a_revocation_is_json_for_programs(controller: Controller, run: Run) -> None:
    """As it came."""
    controller.replies = [wire.Result(id="cli", body={"id": "k1", "revoked_at": "2026"})]

    assert json.loads(run("keys", "revoke", "k1", "--json")[1]) == {"id": "k1", "revoked_at": "2026"}


def test_the_controller_may_refuse(controller: Controller, run: Run) -> None:
    """Its sentence and exit code 4."""
    controller.replies = [wire.Failed(id="cli", reason=Reason.MALFORMED, message="no key has the id k9")]

    assert run("keys", "revoke", "k9") == (cli.EXIT_REFUSED, "", "windlass: no key has the id k9\n")


def test_a_controller_of_another_version_is_told(controller: Controller, run: Run) -> None:
    """A line that is no message of ours."""
    controller.replies = [b'{"type": "greeting"}\n']
    code, _, err = run("keys", "list")

    assert code == cli.EXIT_FAILED
    assert "another version of the protocol" in err


def test_a_controller_that_hangs_up_is_told(controller: Controller, run: Run) -> None:
    """No answer is no success."""
    code, _, err = run("keys", "list")

    assert code == cli.EXIT_UNREACHABLE
    assert "hung up without an answer" in err


def test_without_a_controller_keys_cannot_be_made(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 3, the socket, and what to do."""
    monkeypatch.setenv("WINDLASS_RUN", str(tmp_path))
    code, _, err = run("keys", "list")

    assert code == cli.EXIT_UNREACHABLE
    assert f"no controller answers at {tmp_path}/controller.sock" in err


def test_doctor_says_when_there_is_nothing_to_do(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a line for people, and as an empty list for programs; a name that nothing has is an error of the command line."""
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path))
    monkeypatch.setenv("WINDLASS_RUN", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    code, out, _ = run("doctor")
    body = json.loads(run("doctor", "--json")[1])
    unknown, _, err = run("doctor", "nonsense")

    assert (0, cli.EXIT_USAGE) == (code, unknown)
    assert "could be acted on" in out
    assert {"ok": True, "changed": False, "remedies": []} == body
    assert "nonsense" in err


def test_doctor_changes_nothing_without_root(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to type instead, before it looks at anything."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    code, _, err = run("doctor", "--fix")

    assert cli.EXIT_USAGE == code
    assert "sudo windlass doctor --fix" in " ".join(err.replace("│", " ").split())


def test_check_lists_findings_and_fails_on_errors(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each with its fix; for programs with their severities."""
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path))
    monkeypatch.setenv("WINDLASS_RUN", str(tmp_path))
    monkeypatch.setenv("WINDLASS_LISTEN", "nonsense")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    code, out, _ = run("check")
    body = json.loads(run("check", "--json")[1])

    assert code == cli.EXIT_FAILED
    assert "error: engine: the container engine does not answer" in out
    assert "    sudo systemctl start docker" in out
    assert "error: listen: wanted an address" in out
    assert not body["ok"]
    assert out.startswith("box      ")
    assert body["device"]["architecture"]
    assert {"engine", "listen"} <= {finding["subject"] for finding in body["findings"]}


def test_a_port_with_our_gateway_is_ours(gateway: Gateway) -> None:
    """A running stack is no problem of the next `windlass check`, even when it is failing."""
    listen = gateway.url.removeprefix("http://")
    seen = []
    for status, state in ((200, "ok"), (503, "failing"), (200, "lovely")):
        gateway.answers["GET /health"] = (status, {"status": state, "reasons": []})
        seen.append(survey.read_port(listen))

    assert seen == [Port.OURS, Port.OURS, Port.TAKEN]


def test_a_base_path_is_kept(gateway: Gateway) -> None:
    """A gateway behind a proxy may live below a path."""
    gateway.answers["GET /box/status"] = (200, IDLE)

    assert Api(f"{gateway.url}/box/").get("/status") == IDLE


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (UnreachableError("x"), 3),
        (AnswerError("x", code=None, refused=True), 4),
        (AnswerError("x", code=None, refused=False), 1),
        (ConfigError(["x"]), 2),
        (EngineError("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(exc: Any, code: int) -> None:  # noqa: ANN401
    """As the help says."""
    assert cli.exit_code(exc) == code


def test_errors_that_end_a_process_together_are_told_one_by_one(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Tasks of one group fail as a group; what is not ours keeps its traceback."""
    ours = ExceptionGroup("tasks", [ExceptionGroup("inner", [ConfigError(["one"])]), EngineError("two")])
    monkeypatch.setattr(cli, "app", raising(ours))

    assert run() == (cli.EXIT_USAGE, "", "windlass: one\nwindlass: two\n")
    monkeypatch.setattr(cli, "app", raising(ExceptionGroup("tasks", [EngineError("x"), ZeroDivisionError()])))
    with pytest.raises(ExceptionGroup, match="tasks"):
        cli.main()


def raising(exc: Exception) -> Callable[[], None]:
    """Make a function that raises."""

    def fail() -> None:
        raise exc

    return fail


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """`windlass ... | head` ends quietly."""
    script = f"set -o pipefail; {sys.executable} -m controller --help | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)

    assert done.stderr == ""


def test_starting_imports_nothing_heavy() -> None:
    """A verb that only asks must not pay for the container engine, the web framework or the validation."""
    heavy = "{'docker', 'fastapi', 'pydantic', 'aiohttp', 'rich.table'}"
    script = f"import sys, controller.cli; print(*sorted(set(sys.modules) & {heavy}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
