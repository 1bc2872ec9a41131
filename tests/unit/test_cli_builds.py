"""Builds on the command line: the table, the line that changes, and how a build ends."""

from typing import Any

import pytest

from controller import cli
from controller.errors import AnswerError
from controller.ops.building import follow, line
from controller.ops.shapes import BuildRow
from tests.unit.test_cli import MODEL, Gateway, Run, gateway, run, squeezed

__all__ = ["gateway", "run"]

ROW: BuildRow = {
    "model": "mini",
    "state": "building",
    "engine": "llama-cpp",
    "quantization": "q8_0",
    "why": "model.toml says q8_0",
    "fingerprint": "abc",
    "progress": 0.25,
    "done_bytes": 25 * 2**20,
    "total_bytes": 100 * 2**20,
    "step": "store the weights as q8_0",
    "step_number": 2,
    "steps": 2,
    "seconds": 5.0,
    "eta_s": 15.0,
    "failures": 0,
    "problem": None,
    "serving": "the source",
    "log": [],
}


def row(**changes: Any) -> BuildRow:  # noqa: ANN401 -- any field
    """Return a build with changes."""
    return {**ROW, **changes}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "mini (q8_0): step 2 of 2, store the weights as q8_0: 25% of 100 MiB, about 15.0 s left"),
        ({"eta_s": None}, "mini (q8_0): step 2 of 2, store the weights as q8_0: 25% of 100 MiB"),
        ({"state": "built", "quantization": None}, "mini is built: 100 MiB"),
        ({"state": "finishing"}, "mini (q8_0): 25 MiB are written; they are hashed, and on their way to the disk"),
        ({"state": "verifying"}, "mini (q8_0): its hash is compared"),
        ({"state": "queued"}, "mini (q8_0) waits for its turn"),
        ({"state": "queued", "problem": "no"}, "mini (q8_0) waits for its turn; the last try failed: no"),
        ({"state": "waiting", "problem": "no room"}, "mini (q8_0) waits: no room"),
        ({"state": "failed", "problem": "code 1"}, "mini (q8_0) failed: code 1"),
        ({"state": "cancelled", "problem": "somebody"}, "mini (q8_0) cancelled: somebody"),
    ],
)
def test_every_state_has_a_line(changes: dict[str, Any], words: str) -> None:
    """A line says how far it is, whatever it is doing."""
    assert line(row(**changes)) == words


def test_following_shows_each_change_once() -> None:
    """What stays the same is not said twice, other builds are not looked at, and the end is returned."""
    looks = [
        [row(fingerprint="other", state="failed"), row()],
        [row(progress=0.5)],
        [row(state="built")],
    ]
    shown: list[str] = []
    ended = follow(row(), look=lambda: looks.pop(0), show=lambda one: shown.append(line(one)), pause=lambda _: None)

    assert ended["state"] == "built"
    assert shown == [line(row()), line(row(progress=0.5)), line(row(state="built"))]


def test_a_build_that_is_gone_is_an_error() -> None:
    """Its folder was removed while somebody watched."""
    with pytest.raises(AnswerError, match="is gone"):
        follow(row(), look=list, show=lambda _: None, pause=lambda _: None)


def test_build_follows_until_it_is_built(gateway: Gateway, run: Run) -> None:
    """The verb asks for what was said, and prints lines where there is no terminal."""
    gateway.answers["POST /build_model"] = (200, row(state="queued"))
    gateway.answers["GET /builds"] = (200, {"builds": [row(state="built")]})
    code, out, _ = run("build", "mini", "--quantization", "q4_0")

    assert code == 0
    assert out.splitlines()[0] == "mini (q8_0) waits for its turn"
    assert out.splitlines()[-1] == "mini (q8_0) is built: 100 MiB"


def test_a_build_that_fails_fails_the_verb(gateway: Gateway, run: Run) -> None:
    """A script need not read the text, and `--json` is the row and nothing else."""
    gateway.answers["POST /build_model"] = (200, row())
    gateway.answers["GET /builds"] = (200, {"builds": [row(state="failed", problem="code 1")]})

    assert run("build", "mini")[0] == cli.EXIT_FAILED
    code, out, _ = run("build", "mini", "--json")
    assert code == cli.EXIT_FAILED
    assert '"problem": "code 1"' in out
    assert out.startswith("{")


def test_build_can_come_back_at_once_and_be_stopped(gateway: Gateway, run: Run) -> None:
    """Without waiting nothing is looked at; stopping says so."""
    gateway.answers["POST /build_model"] = (200, row())
    gateway.answers["POST /cancel_build"] = (200, {"model": "mini", "state": "cancelled"})

    assert run("build", "mini", "--no-wait")[:2] == (0, line(row()) + "\n")
    assert run("build", "mini", "--cancel")[:2] == (0, "the build of mini is stopped\n")


def test_builds_are_a_table(gateway: Gateway, run: Run) -> None:
    """One row a build, with what is served meanwhile and why."""
    gateway.answers["GET /builds"] = (200, {"builds": [row(), row(model="b", state="built", progress=1.0, eta_s=None)]})

    assert squeezed(run("builds")[1]) == [
        "model state engine stored as size done left served meanwhile why",
        "mini building llama-cpp q8_0 100 MiB 25% 15.0 s the source model.toml says q8_0",
        "b built llama-cpp q8_0 100 MiB 100% - - model.toml says q8_0",
    ]


def test_models_tell_of_builds(gateway: Gateway, run: Run) -> None:
    """What is not built yet has a line below the table; what is built has none."""
    models = [MODEL | {"state": "building", "build": row()}, MODEL | {"name": "b", "build": row(state="built")}]
    gateway.answers["GET /models"] = (200, {"models": models, "problems": []})

    assert squeezed(run("models")[1])[-1] == line(row())
