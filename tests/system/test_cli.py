"""The verbs of `windlass` against the real stack: what they print for programs and for people, and their exit codes."""

import json
import subprocess
import sys
from typing import Any

import pytest

from bench.stack import PROJECT, Stack
from tests.system.conftest import GIANT, MODELS, NAME, WIDE
from tests.system.talk import Caller

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

PLAIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def windlass(world: Stack, *argv: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a verb as its user would, told by the environment which stack is meant."""
    environ = {
        "PATH": PLAIN,
        "WINDLASS_URL": url or world.url,
        "WINDLASS_HOME": str(world.place.home),
        "WINDLASS_RUN": str(world.place.run),
        "WINDLASS_OWNER": world.place.owner,
    }
    argv = (sys.executable, "-m", "controller", *argv)
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=PROJECT, env=environ, timeout=90)


def told(done: subprocess.CompletedProcess[str]) -> Any:  # noqa: ANN401 -- JSON
    """Return what a verb has printed for programs."""
    return json.loads(done.stdout)


def test_loading_and_unloading(world: Stack) -> None:
    """Both come back when it is done, with what happened, and the worker is listed in between."""
    loaded = windlass(world, "load", NAME, "--json")
    listed = windlass(world, "ps", "--json")
    unloaded = windlass(world, "unload", NAME, "--json")

    assert (0, "resident") == (loaded.returncode, told(loaded)["state"])
    assert "ready" == {worker["model"]: worker["status"] for worker in told(listed)["workers"]}[NAME]
    assert (0, "stopped") == (unloaded.returncode, told(unloaded)["state"])


@pytest.mark.parametrize("verb", [["ps"], ["models"], ["status"], ["plan", NAME], ["load", NAME], ["logs", NAME]], ids=" ".join)
def test_verbs_print_tables_for_people(world: Stack, caller: Caller, verb: list[str]) -> None:
    """Without `--json` the same verbs print text, in which the model or the budget can be read, and nothing goes wrong."""
    caller.text(NAME)
    done = windlass(world, *verb)

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.strip()
    assert not done.stdout.startswith("{")


def test_models_lists_everything(world: Stack) -> None:
    """Every model is there for programs, and for people in a line of its own."""
    listed = windlass(world, "models", "--json")
    shown = windlass(world, "models").stdout

    assert MODELS.keys() <= {model["name"] for model in told(listed)["models"]}
    assert all(any(line.startswith(name) for line in shown.splitlines()) for name in MODELS)


def test_status_is_ok(world: Stack) -> None:
    """A stack that is well is said to be, with exit code 0."""
    done = windlass(world, "status", "--json")

    assert (0, "ok") == (done.returncode, told(done)["state"])


def test_a_plan_says_who_leaves_and_refuses_with_its_exit_code(world: Stack, caller: Caller) -> None:
    """What would be evicted is named; what can never fit ends with 4."""
    caller.text(NAME)
    evicting = windlass(world, "plan", WIDE, "--json")
    never = windlass(world, "plan", GIANT, "--json")

    assert (0, True) == (evicting.returncode, NAME in {one["model"] for one in told(evicting)["evict"]})
    assert (4, "refuse") == (never.returncode, told(never)["answer"])


def test_logs_are_the_workers_own(world: Stack, caller: Caller) -> None:
    """As many lines as were asked for."""
    caller.text(NAME)
    done = windlass(world, "logs", NAME, "--tail", "3", "--json")

    assert 0 == done.returncode
    assert 1 <= len(told(done)["lines"]) <= 3


def test_asking_prints_the_answer(world: Stack) -> None:
    """`windlass ask` prints what the model says and nothing else."""
    done = windlass(world, "ask", NAME, "Hello", "--max-tokens", "8")

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.strip()


@pytest.mark.parametrize(
    "verb", [["load", "windlas-mini"], ["unload", "windlas-mini"], ["plan", "windlas-mini"], ["load", GIANT]]
)
def test_a_refusal_ends_with_4_and_its_reason(world: Stack, verb: list[str]) -> None:
    """What the stack refuses is told in a sentence on the error output."""
    done = windlass(world, *verb)

    assert 4 == done.returncode
    assert done.stderr.startswith("windlass: ")
    assert NAME in done.stderr or GIANT in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_there_ends_with_3(world: Stack) -> None:
    """A gateway that does not answer is another thing than one that refuses."""
    done = windlass(world, "ps", url="http://127.0.0.1:9")

    assert 3 == done.returncode
    assert "127.0.0.1:9" in done.stderr


def test_a_wrong_command_line_ends_with_2(world: Stack) -> None:
    """Usage errors have their own code."""
    done = windlass(world, "load")

    assert 2 == done.returncode


def test_check_finds_nothing_wrong_with_what_runs(world: Stack) -> None:
    """On a host that serves, the check of configuration and host has no error about either."""
    done = windlass(world, "check", "--json")
    found = told(done)

    errors = [one for one in found["findings"] if one["severity"] == "error"]
    # The model that can never fit into the test's budget, and does not on most hosts, may well be an error of its own.
    assert [] == [one for one in errors if GIANT not in one["text"] and GIANT not in one["subject"]]
    assert {0: True, 1: False}[done.returncode] == found["ok"]
