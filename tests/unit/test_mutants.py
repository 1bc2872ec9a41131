"""The list of mutants: it fits the source, and the tests find faults."""

import collections

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant
from tests.mutants.runner import core_modules, survives

HANDFUL = (
    "pinned workers are evicted",
    "stopping memory is forgotten",
    "the gate is always open",
    "the run is ignored for leases",
)


def by_name(name: str) -> Mutant:
    """Find one."""
    return next(m for m in MUTANTS if m.name == name)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.module}: {m.name}")
def test_a_mutant_still_fits_the_source(mutant: Mutant) -> None:
    """Its text stands in the module exactly once, and what comes out is Python of the pure core."""
    compile(mutant.source(), mutant.name, "exec")

    assert mutant.module in core_modules()


def test_every_deciding_module_has_mutants() -> None:
    """No module that decides is left out, and no fault is listed twice."""
    count = collections.Counter(m.module for m in MUTANTS)

    assert (
        min(
            count[m]
            for m in ("planner", "reconcile", "forecast", "scheduler", "drains", "residency", "records", "callers", "slots")
        )
        >= 3
    )
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 25


def test_a_mutant_that_does_not_fit_says_so() -> None:
    """A core that has changed asks for the mutant to be written anew."""
    with pytest.raises(ValueError, match="found it 0 times; adapt the mutant"):
        Mutant("old", "planner", "no such text", "").source()


@pytest.mark.timeout(300)
def test_the_core_without_a_fault_is_found_whole() -> None:
    """Else every fault would count as found: the copy that the tests run in has everything they need."""
    assert survives(None, leave_out=2)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", HANDFUL)
def test_a_mutant_is_killed(name: str) -> None:
    """A handful is tried with every run; `python -m tests.mutants` tries them all."""
    assert not survives(by_name(name))
