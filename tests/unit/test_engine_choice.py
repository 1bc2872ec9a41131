"""`engine = "auto"`: who is chosen on which box, and why."""

from dataclasses import replace

import pytest

from controller.device import NO_GPU, Device, Family, Gpu, GpuAccess
from controller.engines import ENGINES
from controller.engines.choice import Box, Candidate, Decision, Failed, Setback, decide, standing
from controller.errors import ModelError
from controller.units import GIB

LLAMA, TORCH, EDGE, LLM = "llama-cpp", "transformers", "tensorrt-edge-llm", "tensorrt-llm"


def device(family: Family, *, memory_bytes: int = 0) -> Device:
    """Make a box with one GPU of a family."""
    gpu = Gpu(index=0, name="GPU", sm="87", memory_bytes=memory_bytes)
    return Device(family=family, gpus=(gpu,), access=GpuAccess.RUNTIME)


CPU = Box(device=NO_GPU, memory_bytes=16 * GIB)
NANO = Box(device=device(Family.ORIN), memory_bytes=int(7.4 * GIB))
NX = Box(device=device(Family.ORIN), memory_bytes=int(15.3 * GIB))
HIDDEN = Box(device=replace(NX.device, access=GpuAccess.NONE), memory_bytes=NX.memory_bytes)
THOR = Box(device=device(Family.THOR), memory_bytes=122 * GIB)
CARD = Box(device=device(Family.DISCRETE, memory_bytes=24 * GIB), memory_bytes=64 * GIB)


def candidate(engine: str, **changes: object) -> Candidate:
    """Make somebody who can run the model."""
    return Candidate(**{"engine": engine, "key": f"key of {engine}", **changes})  # type: ignore[arg-type]


def failed(at_s: float = 1.0, how: Failed = Failed.BUILD) -> Setback:
    """Make a failure."""
    return Setback(failed=how, reason="out of memory", at_s=at_s)


def choose(*candidates: Candidate, box: Box = NX, embeds: bool = False, **refused: str) -> Decision:
    """Decide between these."""
    return decide(candidates, refused=refused, box=box, embeds=embeds)


@pytest.mark.parametrize(
    ("box", "order", "reason"),
    [
        (CPU, (LLAMA, TORCH, LLM, EDGE), "it is the leanest where no GPU can be used"),
        (HIDDEN, (LLAMA, TORCH, LLM, EDGE), "it is the leanest where no GPU can be used"),
        (NANO, (LLAMA, EDGE, LLM, TORCH), "it needs the least memory on a board of 8 GiB or less"),
        (NX, (EDGE, LLM, LLAMA, TORCH), "it is NVIDIA's own for this board"),
        (THOR, (EDGE, LLM, LLAMA, TORCH), "it is NVIDIA's own for this board"),
        (CARD, (LLM, LLAMA, TORCH, EDGE), "it is NVIDIA's own for its cards"),
    ],
)
def test_the_box_decides_where_nothing_else_does(box: Box, order: tuple[str, ...], reason: str) -> None:
    """The same candidates stand in another order on another box, whatever order they are given in."""
    decision = choose(*(candidate(name) for name in (TORCH, LLM, EDGE, LLAMA)), box=box)

    assert order == decision.order
    assert reason == decision.choice.reason
    assert order[1] == decision.choice.successor
    assert {(name, f"stands behind {order[0]} on this box") for name in order[1:]} == set(decision.choice.others)
    assert not decision.choice.fell_back


def test_an_embedding_model_is_for_who_reads_them_all() -> None:
    """On whatever box."""
    assert TORCH == choose(candidate(LLAMA), candidate(TORCH), embeds=True).order[0]


def test_every_engine_has_a_place_on_every_box() -> None:
    """Whoever adds an engine says where it stands."""
    for box in (CPU, NANO, NX, THOR, CARD):
        for embeds in (False, True):
            assert set(ENGINES) <= set(standing(box, embeds=embeds)[0])


def test_who_is_alone_is_taken() -> None:
    """With the others' reasons beside it."""
    decision = choose(candidate(TORCH), **{EDGE: "needs JetPack 7.2"})

    assert (TORCH,) == decision.order
    assert "no other engine here can run it" == decision.choice.reason
    assert ((EDGE, "needs JetPack 7.2"),) == decision.choice.others
    assert "" == decision.choice.successor


def test_who_would_come_first_and_cannot_is_the_reason() -> None:
    """Where others could stand in, too; who comes later anyway is no reason."""
    decision = choose(candidate(LLAMA), candidate(TORCH), **{EDGE: "needs JetPack 7.2"})
    last = choose(candidate(LLAMA), candidate(EDGE), box=NANO, **{TORCH: "no package"})

    assert f"{EDGE}, which comes first here, cannot: needs JetPack 7.2" == decision.choice.reason
    assert "it needs the least memory on a board of 8 GiB or less" == last.choice.reason


def test_nobody_is_a_problem_that_names_every_reason() -> None:
    """The text says why, engine by engine."""
    with pytest.raises(ModelError, match="no engine can run it here: llama-cpp: no weights; transformers: a pickle"):
        choose(**{LLAMA: "no weights", TORCH: "a pickle"})


def test_who_failed_stands_back() -> None:
    """The next one takes its place, the reason says why, and nobody is asked to go back to it."""
    decision = choose(candidate(EDGE, setback=failed()), candidate(LLAMA), candidate(TORCH))

    assert (LLAMA, TORCH, EDGE) == decision.order
    assert f"{EDGE} could not be built here: out of memory" == decision.choice.reason
    assert (EDGE, "could not be built here: out of memory; `windlass build` tries it again") in decision.choice.others
    assert decision.choice.fell_back
    assert TORCH == decision.choice.successor


def test_who_failed_to_load_is_said_to_have() -> None:
    """The text tells the two failures apart."""
    assert "could not be loaded here: out of memory" == failed(how=Failed.LOAD).text


def test_when_all_have_failed_the_last_one_stays() -> None:
    """Whoever would go back to the first would go round for ever."""
    decision = choose(candidate(EDGE, setback=failed(1.0)), candidate(LLAMA, setback=failed(2.0)))

    assert (LLAMA, EDGE) == decision.order
    assert "" == decision.choice.successor
    assert "so did every other engine" in decision.choice.reason


def test_the_last_with_a_chance_has_no_successor() -> None:
    """It fails as a model with a named engine does."""
    assert "" == choose(candidate(EDGE, setback=failed()), candidate(LLAMA)).choice.successor


def test_who_has_answered_is_not_left() -> None:
    """A failure of an engine that works changes nothing."""
    assert "" == choose(candidate(EDGE, proven=True), candidate(LLAMA)).choice.successor


def test_what_does_not_fit_comes_after_what_does() -> None:
    """And is no successor; where nothing fits, the order of the box holds."""
    too_large = choose(candidate(EDGE, shortage="needs 9 GiB"), candidate(LLAMA), candidate(TORCH, shortage="needs 12 GiB"))
    nothing = choose(candidate(EDGE, shortage="needs 9 GiB"), candidate(LLAMA, shortage="needs 8 GiB"))

    assert (LLAMA, EDGE, TORCH) == too_large.order
    assert f"{EDGE} needs 9 GiB" == too_large.choice.reason
    assert "" == too_large.choice.successor
    assert EDGE == nothing.order[0]


def test_what_the_manifest_asks_for_weighs_more_than_the_box() -> None:
    """An engine that does not serve it stands behind one that does, and before one that does not fit."""
    decision = choose(candidate(EDGE, lacks="does not serve tools"), candidate(LLAMA), candidate(TORCH, shortage="needs 12 GiB"))

    assert (LLAMA, EDGE, TORCH) == decision.order
    assert f"{EDGE} does not serve tools" == decision.choice.reason


@pytest.mark.parametrize(
    ("edge", "llama", "first"),
    [(30.0, 40.0, LLAMA), (30.0, 32.0, EDGE), (0.0, 40.0, EDGE), (30.0, 0.0, EDGE), (40.0, 30.0, EDGE), (30.0, 33.0, LLAMA)],
)
def test_the_faster_of_two_that_ran_is_taken(edge: float, llama: float, first: str) -> None:
    """If the first in line was measured, too, and the other one is clearly faster; who never ran gets its turn."""
    assert first == choose(candidate(EDGE, tokens_per_s=edge), candidate(LLAMA, tokens_per_s=llama)).order[0]


def test_a_measurement_is_the_reason_it_decides() -> None:
    """Both figures are told, on either side."""
    decision = choose(candidate(EDGE, tokens_per_s=30.0), candidate(LLAMA, tokens_per_s=40.0))

    assert f"it was measured here at 40.0 tokens/s, {EDGE} at 30.0" == decision.choice.reason
    assert ((EDGE, f"was measured here at 30.0 tokens/s, {LLAMA} at 40.0"),) == decision.choice.others


@pytest.mark.parametrize("flaw", [{"shortage": "needs 9 GiB"}, {"lacks": "no tools"}, {"setback": failed()}])
def test_speed_makes_up_for_nothing_else(flaw: dict[str, object]) -> None:
    """Who does not fit, lacks something or has failed is not taken for its speed."""
    assert EDGE == choose(candidate(EDGE, tokens_per_s=30.0), candidate(LLAMA, tokens_per_s=90.0, **flaw)).order[0]
