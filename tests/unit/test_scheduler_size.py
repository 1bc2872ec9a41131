"""Thousands of registered models cost a turn nothing."""

from collections.abc import Iterator

import pytest

from controller.planner import MAX_RESIDENTS
from controller.scheduler import Rules, Scheduler
from controller.spec import ModelName, ModelSpec, Tier
from controller.state import LeaseId
from tests.core.world import model_spec


class Counting(dict[ModelName, ModelSpec]):
    """A catalog that counts how often it is looked at."""

    looks = 0

    def __getitem__(self, name: ModelName) -> ModelSpec:
        """Count one look."""
        self.looks += 1
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[ModelName]:
        """Count a look at each."""
        for name in super().__iter__():
            self.looks += 1
            yield name


@pytest.mark.parametrize("tier", list(Tier))
def test_a_turn_looks_at_active_models_only(tier: Tier) -> None:
    """Ten thousand registered models make no turn slower."""
    catalog = Counting({s.name: s for s in (model_spec(f"m{i:05}", size=2, tier=tier) for i in range(10_000))})
    scheduler = Scheduler(Rules(budget_bytes=3), catalog, {}, 0.0)
    scheduler.turn({}, 10.0)
    catalog.looks = 0
    scheduler.request(LeaseId("l"), ModelName("m00007"), 10.0)
    scheduler.turn({}, 10.0)
    scheduler.release(LeaseId("l"), 10.0)
    scheduler.turn({}, 11.0)

    assert catalog.looks < 12 * MAX_RESIDENTS
