"""A model that outgrows its figure is charged more, and loaded anew where it cannot work with what it has."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from controller.drift import LASTING_S
from controller.guard import LONGEST_PAUSE_S
from controller.units import MIB
from tests.controller.rig import OWNER, Machine, model, reaches, running

pytestmark = pytest.mark.looptime

SPEC = model("m", mib=50)
SPEC = replace(SPEC, footprint=replace(SPEC.footprint, weights_bytes=40 * MIB, private_bytes=10 * MIB))


async def test_more_private_memory_is_shown_and_measured_at_once(folder: Path, machine: Machine) -> None:
    """The catalog is asked to look again, the ledger has the new figure, and the worker goes on."""
    async with running(folder, [SPEC], machine=machine) as rig:
        pokes: list[str] = []
        rig.pool.meter.on_measured(lambda: pokes.append("poke"))
        await rig.serve("m")
        machine.allocated(OWNER, SPEC.name, 20 * MIB)
        drift = await reaches("it is seen", lambda: rig.pool.lookout.drift(SPEC.name), patience_s=LONGEST_PAUSE_S + 0.1)
        measured = rig.pool.meter.ledger.find(rig.pool.host.ledger_key(SPEC))

        assert (20 * MIB, 10 * MIB) == (drift.private_bytes, drift.allowed_bytes)
        assert ["poke"] == pokes
        assert measured is not None
        assert (20 * MIB, 0) == (measured.anon_bytes, measured.out_of_memory_bytes)
        assert ["m"] == machine.starts


async def test_one_that_reads_its_weights_again_and_again_is_loaded_with_a_larger_limit(folder: Path, machine: Machine) -> None:
    """Its limit was too small: the ledger knows it, and the next run gets what the catalog then says, when nobody uses it."""
    async with running(folder, [SPEC], machine=machine) as rig:
        larger = replace(SPEC, footprint=replace(SPEC.footprint, total_bytes=70 * MIB))
        rig.pool.meter.on_measured(lambda: rig.pool.register({SPEC.name: larger}))
        held = await rig.granted("m")

        def thrashes() -> bool:
            machine.mapped(OWNER, SPEC.name, 50 * MIB, refault_bytes=2 * MIB)
            drift = rig.pool.lookout.drift(SPEC.name)
            return drift is not None and drift.thrashes

        await reaches("it is seen", thrashes, patience_s=LASTING_S + 4 * LONGEST_PAUSE_S)
        await asyncio.sleep(3.0)
        cut, starts = rig.ear.revoked(held), list(machine.starts)
        rig.release(held)
        await rig.serve("m")
        measured = rig.pool.meter.ledger.find(rig.pool.host.ledger_key(SPEC))

        assert cut is None
        assert ["m"] == starts
        assert ["m", "m"] == machine.starts
        assert measured is not None
        assert 50 * MIB == measured.out_of_memory_bytes
        assert 70 * MIB == machine.box(OWNER, SPEC.name).spec.memory_bytes
        assert rig.pool.lookout.drift(SPEC.name) is None
