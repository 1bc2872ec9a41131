"""The endurance measurement in small: hostile load with hang-ups and kills, and every request accounted for."""

import asyncio

import pytest

from bench.soak import BUDGET, CONFIG, MANIFEST, MINI, MODELS, load, rows
from bench.stack import place_model, stack, wait_until
from tests.system.talk import PATIENCE_S

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

CLIENTS = 40
SECONDS = 15.0


def test_every_request_under_hostile_load_is_accounted_for() -> None:
    """None is lost, none answered twice or by another model, no lease is left, and nobody waits longer than was published."""
    with stack("soak", budget=BUDGET, config=CONFIG) as running:
        for name in MODELS:
            place_model(MINI, running.models / name, manifest=MANIFEST)
        running.wait_for_models(*MODELS)
        tally = asyncio.run(load(running, clients=CLIENTS, seconds=SECONDS))
        wait_until(lambda: running.api.get("/status")["leases"] == 0, "all leases are back", PATIENCE_S)
        result = rows(tally, running, killed=2)

    assert [] == [(row.name, row.value, row.goal) for row in result if row.met is False]
    assert tally.answered > CLIENTS
