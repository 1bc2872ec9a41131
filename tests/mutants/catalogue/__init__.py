"""The faults, one file for each group of modules; a new file is listed here."""

from tests.mutants.catalogue import (
    boxes,
    building,
    bundles,
    conversations,
    engines,
    foresight,
    operating,
    planning,
    scheduling,
    watching,
)
from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = tuple(
    mutant
    for group in (
        boxes,
        building,
        bundles,
        conversations,
        engines,
        foresight,
        operating,
        planning,
        scheduling,
        watching,
    )
    for mutant in group.MUTANTS
)
