"""Which figure a model is charged: the operator's, the measured one, or the estimate."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controller.footprint import MARGIN_BYTES, STEP_BYTES, Measured, resolve
from controller.spec import Footprint, FootprintSource
from controller.units import MIB

WEIGHTS_BYTES = 1000 * MIB
ESTIMATE = Footprint(
    total_bytes=1400 * MIB, weights_bytes=WEIGHTS_BYTES, private_bytes=400 * MIB, source=FootprintSource.ESTIMATE
)


def test_what_lies_on_cards_is_another_matter() -> None:
    """An override and a measurement of the box's memory leave what the model takes of cards as it is."""
    estimate = replace(ESTIMATE, gpu_bytes=5 * MIB, gpu_each_bytes=MIB)
    found = (
        resolve(estimate, override_bytes=64 * MIB),
        resolve(estimate, measured=Measured(out_of_memory_bytes=4000 * MIB), context_tokens=1),
    )

    assert [(5 * MIB, MIB)] * 2 == [(footprint.gpu_bytes, footprint.gpu_each_bytes) for footprint in found]


def test_what_the_operator_says_of_cards_wins_where_there_are_any() -> None:
    """It replaces estimate and measurement of cards alone, and means nothing to a model that takes nothing of them."""
    estimate = replace(ESTIMATE, gpu_bytes=500 * MIB, gpu_each_bytes=MIB)
    seen = Measured(gpu_bytes=900 * MIB, longest_tokens=1)
    said = resolve(estimate, gpu_override_bytes=300 * MIB, measured=seen, context_tokens=1)

    assert (300 * MIB, estimate.total_bytes, MIB) == (said.gpu_bytes, said.total_bytes, said.gpu_each_bytes)
    assert FootprintSource.OVERRIDE is resolve(estimate, gpu_override_bytes=300 * MIB).source
    assert ESTIMATE == resolve(ESTIMATE, gpu_override_bytes=300 * MIB)


def test_without_a_measurement_the_estimate_holds() -> None:
    """A model that never ran is charged what its engine computed."""
    assert ESTIMATE == resolve(ESTIMATE)


def test_override_wins_over_everything() -> None:
    """What the operator wrote is taken, even below the weights."""
    measured = Measured(anon_bytes=900 * MIB, longest_tokens=100)

    footprint = resolve(ESTIMATE, override_bytes=600 * MIB, measured=measured, context_tokens=100)

    assert (600 * MIB, 600 * MIB, 0, FootprintSource.OVERRIDE) == (
        footprint.total_bytes,
        footprint.weights_bytes,
        footprint.private_bytes,
        footprint.source,
    )


def test_larger_measurement_replaces_the_estimate() -> None:
    """What was seen is charged, with a margin, as soon as it is seen."""
    footprint = resolve(ESTIMATE, measured=Measured(anon_bytes=600 * MIB), context_tokens=4096)

    assert (1632 * MIB, WEIGHTS_BYTES, FootprintSource.MEASURED) == (
        footprint.total_bytes,
        footprint.weights_bytes,
        footprint.source,
    )


def test_smaller_measurement_waits_for_a_long_request() -> None:
    """Buffers that nobody has used yet do not show, so a first short request lowers nothing."""
    before = resolve(ESTIMATE, measured=Measured(anon_bytes=200 * MIB, longest_tokens=100), context_tokens=4096)
    after = resolve(ESTIMATE, measured=Measured(anon_bytes=200 * MIB, longest_tokens=2048), context_tokens=4096)

    assert (ESTIMATE, 1232 * MIB) == (before, after.total_bytes)


def test_small_saving_confirms_the_estimate() -> None:
    """A measurement that would save less than a twentieth changes the source and not the figure."""
    footprint = resolve(ESTIMATE, measured=Measured(anon_bytes=360 * MIB, longest_tokens=4096), context_tokens=4096)

    assert (ESTIMATE.total_bytes, FootprintSource.MEASURED) == (footprint.total_bytes, footprint.source)


def test_after_the_kernel_killed_it_the_next_run_gets_more() -> None:
    """A worker killed at its limit is not started into the same limit again."""
    footprint = resolve(ESTIMATE, measured=Measured(out_of_memory_bytes=1400 * MIB), context_tokens=4096)

    assert (1760 * MIB, FootprintSource.MEASURED) == (footprint.total_bytes, footprint.source)


def test_a_kill_at_a_smaller_limit_lowers_nothing() -> None:
    """A kill at an override that is gone says nothing about the estimate."""
    assert ESTIMATE == resolve(ESTIMATE, measured=Measured(out_of_memory_bytes=100 * MIB), context_tokens=4096)


def test_loads_and_requests_alone_change_nothing() -> None:
    """Without a memory reading the estimate stands."""
    assert ESTIMATE == resolve(ESTIMATE, measured=Measured(load_s=2.0, loads=3, longest_tokens=4096), context_tokens=4096)


@given(
    anon_bytes=st.integers(min_value=0, max_value=4000 * MIB),
    longest_tokens=st.integers(min_value=0, max_value=4096),
    out_of_memory_bytes=st.integers(min_value=0, max_value=4000 * MIB),
)
def test_footprint_is_never_below_what_was_seen(anon_bytes: int, longest_tokens: int, out_of_memory_bytes: int) -> None:
    """Whatever was measured fits, the parts add up, and a killed worker gets more than it was killed at."""
    measured = Measured(anon_bytes=anon_bytes, longest_tokens=longest_tokens, out_of_memory_bytes=out_of_memory_bytes)

    footprint = resolve(ESTIMATE, measured=measured, context_tokens=4096)

    assert footprint.total_bytes == footprint.weights_bytes + footprint.private_bytes
    assert footprint.private_bytes >= anon_bytes
    assert footprint.total_bytes >= out_of_memory_bytes


@given(anon_bytes=st.integers(min_value=401 * MIB, max_value=4000 * MIB))
def test_a_measurement_that_creeps_keeps_its_figure(anon_bytes: int) -> None:
    """Figures move in steps, so that a container is not made again for a page."""
    footprint = resolve(ESTIMATE, measured=Measured(anon_bytes=anon_bytes), context_tokens=4096)

    assert 0 == footprint.total_bytes % STEP_BYTES
    assert footprint.total_bytes < WEIGHTS_BYTES + anon_bytes + MARGIN_BYTES + STEP_BYTES


ON_CARDS = replace(ESTIMATE, gpu_bytes=2000 * MIB, gpu_each_bytes=300 * MIB)


def on_cards(**measured: int) -> tuple[int, FootprintSource]:
    """Return what is charged of cards, and where that came from."""
    found = resolve(ON_CARDS, measured=Measured(**measured), context_tokens=4096)
    return found.gpu_bytes // MIB, found.source


def test_more_on_cards_than_expected_is_charged_at_once() -> None:
    """Whatever was asked of it, it was there; and the box's memory keeps its own figure."""
    found = resolve(ON_CARDS, measured=Measured(gpu_bytes=2400 * MIB), context_tokens=4096)

    assert (2432, FootprintSource.MEASURED) == (found.gpu_bytes // MIB, found.source)
    assert ESTIMATE.total_bytes == found.total_bytes


def test_less_on_cards_is_believed_when_enough_was_asked_of_it() -> None:
    """As with the box's memory, buffers that nobody has used yet do not show."""
    assert [(2000, FootprintSource.ESTIMATE), (1232, FootprintSource.MEASURED)] == [
        on_cards(gpu_bytes=1200 * MIB, longest_tokens=tokens) for tokens in (100, 2048)
    ]


def test_a_card_that_had_too_little_gets_a_quarter_more() -> None:
    """Than what was kept for it when it said so."""
    assert (2512, FootprintSource.MEASURED) == on_cards(gpu_out_of_memory_bytes=2000 * MIB)


def test_a_little_less_on_cards_changes_nothing() -> None:
    """Another figure would make the container again."""
    assert (2000, FootprintSource.ESTIMATE) == on_cards(gpu_bytes=1900 * MIB, longest_tokens=4096)


def test_what_nobody_could_see_on_cards_stays_an_estimate() -> None:
    """It is not nothing."""
    assert (2000, FootprintSource.MEASURED) == on_cards(anon_bytes=900 * MIB, longest_tokens=4096)
