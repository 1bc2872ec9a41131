"""llama.cpp's router is given what our worker was given, and is counted by what it says."""

from pathlib import Path

from bench.peer import bounds
from bench.router import preset, router_environment, router_flags, spawned
from bench.sides import failure_of

ARGV = (
    *("--host", "/run/worker/worker.sock", "--model", "/model/a.gguf", "--alias", "a", "--ctx-size", "1024"),
    *("--no-repack", "--slot-save-path", "/kv", "--jinja", "--log-verbosity", "2", "--cache-type-k", "f16"),
)


def test_a_router_gets_our_flags_but_for_those_it_sets_itself() -> None:
    """Address, model and name go with their arguments; everything that makes an answer fast or slow stays, in order."""
    assert ["--ctx-size", "1024", "--no-repack", "--jinja", "--cache-type-k", "f16"] == router_flags(ARGV)


def test_the_program_before_the_flags_is_no_flag() -> None:
    """An entry point that is told its program does not make the router fail."""
    assert router_flags(ARGV) == router_flags(("/usr/local/bin/llama-server", *ARGV))


def test_bounds_of_memory_and_threads_go_with_their_arguments() -> None:
    """What a worker does to be quick is not among them."""
    assert ["--ctx-size", "1024"] == bounds(ARGV)


def test_a_router_gets_what_steers_the_computing() -> None:
    """Threads wait the same way on both sides; what means something in a container alone is left out."""
    worker = {"OMP_WAIT_POLICY": "passive", "PATH": "/bin", "NOTIFY_SOCKET": "/run/n", "WINDLASS_WEIGHTS": "x"}

    assert {"OMP_WAIT_POLICY": "passive"} == router_environment(worker)


def test_the_list_of_models_names_weights_and_nothing_else() -> None:
    """One section a model, so that flags are the same for all."""
    assert "version = 1\n\n[a]\nmodel = /m/a.gguf\n\n[b]\nmodel = /m/b.gguf\n" == preset(
        {"a": Path("/m/a.gguf"), "b": Path("/m/b.gguf")}
    )


def test_starts_are_counted_from_the_log() -> None:
    """Each start is a line; other lines about the same model are none."""
    log = "srv  spawning server instance with name=a on port 1\nsrv spawning server instance with args:\nname=a\n"

    assert ["a", "a"] == spawned(log + log)


def test_an_answer_counts_only_if_it_is_whole_and_this_models() -> None:
    """Another model's, a short one, an error and rubbish are failures, each with what came."""
    good = b'{"model": "a", "usage": {"completion_tokens": 8}}'

    assert "" == failure_of("a", 8, 200, good)
    assert failure_of("b", 8, 200, good)
    assert failure_of("a", 9, 200, good)
    assert failure_of("a", 8, 500, good)
    assert "not json" in failure_of("a", 8, 200, b"not json")
    assert failure_of("a", 8, 200, b"[]")
