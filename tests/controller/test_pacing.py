"""A box that gets hot while it serves: fewer callers at once, nobody lost, and all of it said."""

import asyncio
from pathlib import Path

import pytest

from controller import reports
from controller.pace import FALL_S, MUCH, RISE_S
from controller.pacing import LOOK_S
from controller.power import QUIET, HotSpot, PowerMode, PowerModes, PowerReading
from controller.wire import Granted
from tests.controller.rig import Rig, model, reaches, running

pytestmark = pytest.mark.looptime(noop_cycles=1)

HOT = PowerReading(spots=(HotSpot(name="tj-thermal", celsius=101.0, limit_celsius=99.0),))
WEAK = PowerModes(
    modes=(PowerMode(number=0, name="15W", gpu_hz=600e6), PowerMode(number=2, name="MAXN_SUPER", gpu_hz=1000e6)), current=0
)


async def crowd(rig: Rig, count: int) -> list[str]:
    """Let so many ask, and return who is served then."""
    leases = [rig.ask("a") for _ in range(count)]
    await asyncio.sleep(1.0)
    return [lease for lease in leases if isinstance(rig.ear.answer(lease), Granted)]


async def heats_up(rig: Rig) -> None:
    """Let the box be hot until that counts."""
    rig.machine.power = HOT
    await reaches("the heat counts", lambda: rig.pool.pacing.pace.factor == MUCH, patience_s=FALL_S + 2 * LOOK_S)


async def test_a_hot_box_serves_fewer_at_once_and_all_of_them_again_when_it_has_cooled(tmp_path: Path) -> None:
    """Six ask of a model that serves four: two are served while it is hot, the rest when it is not, and nobody is refused."""
    async with running(tmp_path, [model("a", parallel=4)], knobs={"request_limit_s": 300.0}) as rig:
        await rig.serve("a")
        await heats_up(rig)
        served = await crowd(rig, 6)
        assert len(served) == 2

        for lease in served:
            rig.release(lease)
        await reaches("two more are served", lambda: len(rig.pool.scheduler.leases) == 2)
        assert rig.pool.scheduler.waiting == 2

        rig.machine.power = QUIET
        await reaches("it has cooled", lambda: rig.pool.pacing.pace.factor == 1.0, patience_s=RISE_S + 2 * LOOK_S)
        await reaches("all are served", lambda: rig.pool.scheduler.waiting == 0, patience_s=1.0)
        assert len(rig.pool.scheduler.leases) == 4


async def test_who_was_promised_a_place_before_has_it(tmp_path: Path) -> None:
    """Four are served and two wait when it gets hot; the two get the next places although four is too many now."""
    async with running(tmp_path, [model("a", parallel=4)]) as rig:
        served = await crowd(rig, 6)
        assert len(served) == 4
        await heats_up(rig)

        for lease in served[:2]:
            rig.release(lease)
        await reaches("the two are served", lambda: rig.pool.scheduler.waiting == 0, patience_s=1.0)
        assert len(rig.pool.scheduler.leases) == 4


async def test_a_moment_of_heat_changes_nothing(tmp_path: Path) -> None:
    """It must last."""
    async with running(tmp_path, [model("a", parallel=4)]) as rig:
        rig.machine.power = HOT
        await asyncio.sleep(FALL_S - LOOK_S)
        rig.machine.power = QUIET
        await asyncio.sleep(FALL_S + LOOK_S)

        assert rig.pool.pacing.pace.factor == 1.0


async def test_a_weak_mode_counts_from_the_first_look_and_is_said(tmp_path: Path) -> None:
    """A model for four serves two, its figures are lower, and the status names the mode and the better one."""
    async with running(tmp_path, [model("a", parallel=4)]) as rig:
        rig.machine.power = PowerReading(modes=WEAK)
        await reaches("it counts", lambda: rig.pool.pacing.pace.factor < 1.0, patience_s=2 * LOOK_S)
        await rig.serve("a")

        assert len(await crowd(rig, 6)) == 2
        row = reports.pace_row(rig.pool.pacing.pace, rig.pool.pacing.reading)
        assert row == {
            "factor": 0.6,
            "throttled": False,
            "reasons": ["the power mode is 15W (0), and the strongest is MAXN_SUPER (2)"],
            "mode": "15W",
            "strongest_mode": "MAXN_SUPER",
        }


async def test_a_measured_speed_is_kept_as_of_full_speed(tmp_path: Path) -> None:
    """Ten tokens a second of a box at half its speed are twenty, and ten again in what is expected of it as it is."""
    async with running(tmp_path, [model("a", parallel=4)]) as rig:
        await rig.serve("a")
        await heats_up(rig)
        lease = await rig.granted("a")
        rig.release(lease, outcome="ok", first_token_s=1.0, total_s=11.0, prompt_tokens=1, completion_tokens=101)

        spec = rig.pool.models[next(iter(rig.pool.models))]
        measured = rig.pool.meter.ledger.find(rig.pool.host.ledger_key(spec))
        assert measured
        assert measured.tokens_per_s == pytest.approx(20.0)
        row = reports.model_row(spec, worker=None, record=None, measured=measured, now=0.0, pace=MUCH)
        assert row["tokens_per_s"] == pytest.approx(10.0)
