"""Workers that are killed, run out of memory, freeze or are removed by hand: what their callers hear, and how they come back."""

import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.stack import Stack, output, wait_until
from tests.system.conftest import NAME, Place
from tests.system.talk import LONG, PATIENCE_S, Caller, exists, leases, row, slowly, started_at, throttle, whole

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

GREEDY = 'memory = "40MiB"\nparallel = 64\n'
"""Conversations of 64 callers take 128 MiB, which the engine makes room for when it loads: the kernel kills it every time."""


FILL = "i=0; while :; do i=$((i+1)); head -c 4194304 /dev/zero > /tmp/$i; done"
"""Take memory without an end, for a shell."""


def test_a_worker_killed_under_a_stream_is_named_in_it(world: Stack, caller: Caller, place: Place) -> None:
    """What was said stays said; the last event is an error that names the model and the cause; the next caller is served."""
    victim = place("killed-streaming")
    with slowly(world, victim), caller.stream(victim) as stream:
        stream.next()
        output(["docker", "kill", world.worker(victim)])
        error = stream.rest()[-1]["error"]
    again = caller.complete(victim)

    assert stream.text
    assert victim in error["message"]
    assert ("worker_failed", "server_error", {"model": victim, "cause": "killed"}) == (
        error["code"],
        error["type"],
        error["details"],
    )
    assert 200 == again.status_code


def test_a_request_whose_worker_is_killed_before_it_answered_is_tried_again(world: Stack, caller: Caller, place: Place) -> None:
    """Where nothing was sent yet, the caller notices nothing but the time it takes."""
    victim = place("killed-answering")
    expected = caller.text(victim, tokens=64)
    with slowly(world, victim), ThreadPoolExecutor() as threads:
        asked = threads.submit(caller.complete, victim, tokens=LONG, ignore_eos=True)
        wait_until(lambda: leases(world, victim) == 1, "it is being answered", PATIENCE_S)
        before = started_at(world, victim)
        output(["docker", "kill", world.worker(victim)])
        throttle(world, victim, "2")
        answer = asked.result(PATIENCE_S)

    assert 200 == answer.status_code
    assert answer.json()["choices"][0]["text"].startswith(expected)
    assert LONG == answer.json()["usage"]["completion_tokens"]
    assert before != started_at(world, victim)


def test_a_worker_that_never_gets_enough_memory_is_given_up_with_the_reason(world: Stack, caller: Caller, place: Place) -> None:
    """The kernel's kill is told apart from a crash, and after a few the model rests, and everybody is told why."""
    greedy = place("greedy", GREEDY)
    first = caller.complete(greedy)
    next_one = caller.complete(greedy)
    found, health = row(world, greedy), world.api.health()
    other = caller.complete(NAME)

    said = [answer.json()["error"] for answer in (first, next_one)]
    assert first.status_code in (502, 503)
    assert 503 == next_one.status_code
    assert all("out_of_memory" in error["message"] and greedy in error["message"] for error in said)
    assert int(next_one.headers["retry-after"]) >= 1
    assert ("failed", 3) == (found["state"], found["failures"])
    assert "out_of_memory" in found["reason"]
    assert "degraded" == health["status"]
    assert any(greedy in reason for reason in health["reasons"])
    assert 200 == other.status_code


def test_a_crash_loop_ends_and_a_mended_model_is_tried_at_once(world: Stack, caller: Caller, place: Place) -> None:
    """A model given up is not started again by itself, until somebody changes its folder."""
    greedy = place("greedy-then-mended", GREEDY)
    caller.complete(greedy)
    given_up = row(world, greedy)
    last_start = started_at(world, greedy)
    caller.complete(greedy)
    untouched = started_at(world, greedy)
    manifest = world.models / greedy / ".model.toml"
    manifest.write_text('memory = "400MiB"\nparallel = 64\n', encoding="utf-8")
    manifest.rename(world.models / greedy / "model.toml")
    wait_until(lambda: row(world, greedy)["footprint_bytes"] == 400 * 1024 * 1024, "the new limit is read", PATIENCE_S)
    answer = caller.post("/load_model", {"model": greedy})

    assert "failed" == given_up["state"]
    assert last_start == untouched
    assert (200, "resident") == (answer.status_code, answer.json().get("state"))


def fill_shared_memory(world: Stack, model: str) -> None:
    """Take the worker's memory from inside, until the kernel must kill."""
    # The kernel may choose whoever fills it; then that begins again, until the server is chosen and takes the container with it.
    subprocess.run(["docker", "exec", world.worker(model), "timeout", "60", "sh", "-c", FILL], capture_output=True, check=False)


def memory_group(pid: int) -> Path:
    """Return the folder of the control group that counts a process's memory."""
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
    found = next(line.split(":", 2)[2] for line in lines if ":memory:" in line or line.startswith("0::"))
    return Path("/sys/fs/cgroup/memory" + found)


def test_a_worker_that_runs_out_of_memory_under_a_stream_is_told_apart_from_a_crash(
    world: Stack, caller: Caller, place: Place
) -> None:
    """The kernel kills at the container's real limit, and the stream's last event says that it was memory."""
    full = place("full", 'memory = "48MiB"\n')
    with slowly(world, full), caller.stream(full) as stream:
        stream.next()
        fill_shared_memory(world, full)
        error = stream.rest()[-1]["error"]

    assert ("worker_out_of_memory", "out_of_memory") == (error["code"], error["details"]["cause"])
    assert full in error["message"]


def test_a_worker_that_stands_still_at_its_limit_ran_out_of_memory_too(world: Stack, caller: Caller, place: Place) -> None:
    """Where the kernel does not get to kill, everything in the container waits for memory: that is found by asking, and named."""
    stuck = place("stuck", 'memory = "48MiB"\n')
    with slowly(world, stuck), caller.stream(stuck) as stream:
        stream.next()
        pid = output(["docker", "inspect", "--format", "{{.State.Pid}}", world.worker(stuck)])
        control = memory_group(int(pid)) / "memory.oom_control"
        if not control.exists():
            pytest.skip("only the first version of control groups can keep the kernel from killing")
        control.write_text("1", encoding="ascii")
        with subprocess.Popen(["docker", "exec", world.worker(stuck), "sh", "-c", FILL], stderr=subprocess.DEVNULL) as filling:
            error = stream.rest()[-1]["error"]
            filling.wait(PATIENCE_S)
    wait_until(lambda: why_given_up(world, stuck), "it is given up", PATIENCE_S)

    # A server that still gets to see the kernel's refusal closes the connection by itself, and nobody knows why at that moment.
    assert error["details"]["cause"] in ("out_of_memory", "unknown")
    assert stuck in error["message"]
    assert ["out_of_memory"] == why_given_up(world, stuck)


def why_given_up(world: Stack, model: str) -> list[str]:
    """Return the causes for which the controller has ended the workers of a model itself."""
    lines = map(json.loads, world.logs("controller").splitlines())
    return [line["cause"] for line in lines if line["event"] == "worker.given_up" and line["model"] == model]


def test_frozen_workers_are_found_ended_and_started_again(world: Stack, caller: Caller, place: Place) -> None:
    """Stopped by a signal or by the engine, a worker that answers nothing is noticed; its caller is told, the next one served."""
    frozen = {place("stopped-by-signal"): ["kill", "--signal", "STOP"], place("paused"): ["pause"]}
    errors, before = {}, {}
    with ExitStack() as open_streams:
        streams = {}
        for model, verb in frozen.items():
            open_streams.enter_context(slowly(world, model))
            streams[model] = open_streams.enter_context(caller.stream(model))
            streams[model].next()
            before[model] = started_at(world, model)
            throttle(world, model, "1")
            output(["docker", *verb, world.worker(model)])
        for model, stream in streams.items():
            errors[model] = stream.rest()[-1]["error"]
    statuses = [caller.complete(model).status_code for model in frozen]

    assert [("worker_failed", "unresponsive")] * 2 == [(error["code"], error["details"]["cause"]) for error in errors.values()]
    assert all(model in error["message"] for model, error in errors.items())
    assert [200, 200] == statuses
    assert all(before[model] != started_at(world, model) for model in frozen)


def remove(world: Stack, model: str) -> None:
    """`docker rm -f`."""
    output(["docker", "rm", "--force", world.worker(model)])


def kill(world: Stack, model: str) -> None:
    """`docker kill`."""
    output(["docker", "kill", world.worker(model)])


def stop(world: Stack, model: str) -> None:
    """`docker stop`, which asks first."""
    output(["docker", "stop", "--time", "5", world.worker(model)])


@pytest.mark.parametrize("by_hand", [remove, kill, stop])
def test_what_is_done_by_hand_is_made_good(
    world: Stack, caller: Caller, place: Place, by_hand: Callable[[Stack, str], None]
) -> None:
    """A worker removed, killed or stopped by hand while it serves: its caller hears of it, and the next one is answered."""
    victim = place(f"by-hand-{by_hand.__name__}")
    with slowly(world, victim), caller.stream(victim) as stream:
        stream.next()
        by_hand(world, victim)
        last = stream.rest()[-1]
    again = caller.complete(victim)

    assert victim in last["error"]["message"]
    assert 200 == again.status_code
    assert exists(world.worker(victim))


def test_an_idle_worker_killed_costs_nobody_anything(world: Stack, caller: Caller, place: Place) -> None:
    """Killed between two requests, whole and as a stream: the second one is answered all the same."""
    victim = place("killed-idle")
    expected = caller.text(victim)
    kill(world, victim)
    as_stream = caller.stream(victim, tokens=4)
    with as_stream as stream:
        stream.rest()
    kill(world, victim)

    assert whole(stream)
    assert expected == caller.text(victim)
