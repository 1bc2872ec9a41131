"""A worker that needs more than it is charged is noticed, once, and as what it is."""

from controller.drift import FULL_SHARE, LASTING_S, REFAULT_BYTES_PER_S, Drift, Drifts, Reading, is_choked
from controller.spec import ModelName
from controller.state import RunId
from controller.units import MIB

MODEL, RUN = ModelName("m"), RunId("1")
WEIGHTS_BYTES, MEMORY_BYTES = 80 * MIB, 100 * MIB


def see(
    drifts: Drifts, now: float, *, anon_mib: int = 10, file_mib: int = 80, refaults: float = 0.0, run: RunId = RUN
) -> Drift | None:
    """Take a reading."""
    reading = Reading(
        private_bytes=anon_mib * MIB,
        charged_bytes=(anon_mib + file_mib) * MIB,
        refault_bytes_per_s=refaults,
        weights_bytes=WEIGHTS_BYTES,
        memory_bytes=MEMORY_BYTES,
    )
    return drifts.see(MODEL, run, reading, now=now)


def test_what_fits_its_figure_has_not_drifted() -> None:
    """Every byte of the private part may be used."""
    drifts = Drifts()

    assert see(drifts, 0.0, anon_mib=20) is None
    assert drifts.of(MODEL, RUN) is None


def test_more_private_memory_than_the_figure_allows_is_told_once() -> None:
    """The sentence has both figures, and stays with the run."""
    drifts = Drifts()
    news = [see(drifts, now, anon_mib=anon_mib) for now, anon_mib in ((0.0, 21), (1.0, 30), (2.0, 5))]
    found = drifts.of(MODEL, RUN)

    assert news == [found, None, None]
    assert found is not None
    assert (21 * MIB, 20 * MIB, False) == (found.private_bytes, found.allowed_bytes, found.thrashes)
    assert "holds 21 MiB privately, and its figure allows for 20 MiB" in found.why
    assert drifts.of(MODEL, RunId("2")) is None


def test_a_full_container_that_reads_its_weights_again_for_a_while_thrashes() -> None:
    """Both conditions must hold all the time."""
    drifts = Drifts()
    full_mib, much = int(100 * FULL_SHARE) - 10, float(REFAULT_BYTES_PER_S)
    seen = [
        see(drifts, 0.0, file_mib=full_mib, refaults=much),
        see(drifts, LASTING_S * 0.9, file_mib=full_mib, refaults=much),
        see(drifts, LASTING_S, file_mib=full_mib, refaults=much - 1),
        see(drifts, LASTING_S * 2, file_mib=full_mib, refaults=much),
        see(drifts, LASTING_S * 2.9, file_mib=full_mib - 1, refaults=much),
        see(drifts, LASTING_S * 4, file_mib=full_mib, refaults=much),
        see(drifts, LASTING_S * 5, file_mib=full_mib, refaults=much),
    ]

    assert [None] * 6 == seen[:6]
    assert seen[6] is not None
    assert seen[6].thrashes
    assert "limit of 100 MiB" in seen[6].why


def test_getting_worse_is_news_and_getting_better_is_not() -> None:
    """Private memory first, thrash on top, and nothing after that."""
    drifts = Drifts()
    first = see(drifts, 0.0, anon_mib=30, file_mib=69, refaults=1e9)
    worse = see(drifts, LASTING_S, anon_mib=30, file_mib=69, refaults=1e9)
    still = see(drifts, LASTING_S * 3, anon_mib=40, file_mib=59, refaults=1e9)

    assert first is not None
    assert worse is not None
    assert (False, True, None) == (first.thrashes, worse.thrashes, still)


def test_another_run_begins_anew() -> None:
    """It was given more, and is judged by that."""
    drifts = Drifts()
    see(drifts, 0.0, anon_mib=30)

    assert see(drifts, 1.0, run=RunId("2")) is None
    assert see(drifts, 2.0, anon_mib=30, run=RunId("2")) is not None


def test_a_figure_below_the_weights_allows_for_nothing() -> None:
    """What an operator has set too low is said, and no negative sum with it."""
    reading = Reading(private_bytes=MIB, charged_bytes=MIB, refault_bytes_per_s=0.0, weights_bytes=2, memory_bytes=1)

    found = Drifts().see(MODEL, RUN, reading, now=0.0)

    assert found is not None
    assert 0 == found.allowed_bytes


def test_a_worker_is_choked_by_private_memory_up_to_its_limit() -> None:
    """One that could still drop pages of files is not; the kernel's own few percent do not matter; a kill always does."""
    assert is_choked(95 * MIB, memory_bytes=MEMORY_BYTES, oom_kills=0)
    assert not is_choked(94 * MIB, memory_bytes=MEMORY_BYTES, oom_kills=0)
    assert is_choked(MIB, memory_bytes=MEMORY_BYTES, oom_kills=1)
