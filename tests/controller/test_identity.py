"""A controller on each of the boxes that were written down, and on one that changes under it."""

# ruff: noqa: ANN401 -- settings are of any type
import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.app import SOCKET_NAME, live
from controller.device import GpuAccess
from controller.drivers.base import EngineInfo
from controller.drivers.memory import MemoryDriver
from controller.errors import DeviceChangedError
from controller.identity import LOOK_S, find_out
from controller.probes.jetson import RELEASE_FILE
from controller.probes.system import RecordedSystem
from controller.spec import ModelName
from controller.trial import NAME
from controller.units import GIB
from tests.controller.rig import OWNER, Machine
from tests.controller.test_app import add, settings
from tests.controller.wire_client import Client, connected
from tests.devices import NAMES, Recording, recorded
from tests.waiting import until


@contextlib.asynccontextmanager
async def controller(folder: Path, machine: Machine, box: Recording, **changes: Any) -> Any:
    """Run a controller on *box*, whose engine says of itself what was written down, as long as the block runs."""
    (folder / "r").mkdir(exist_ok=True)
    machine.told = box.engine
    living = live(settings(folder, **changes), lambda: MemoryDriver(OWNER, engine=machine), box.system, look_s=0.05)
    serving = asyncio.create_task(living)
    trying = asyncio.create_task(without_trials(machine))
    try:
        await until("it listens", lambda: serving.done() or (folder / "r" / SOCKET_NAME).exists())
        yield serving
    finally:
        trying.cancel()
        serving.cancel()
        await asyncio.gather(serving, trying, return_exceptions=True)


async def without_trials(machine: Machine) -> None:
    """End every trial of the GPU as an image does that has no program for it."""
    while True:
        for bench in machine.benches(OWNER):
            if bench.shown.running and bench.spec.build == NAME:
                machine.job_ended(OWNER, NAME, code=127)
        await asyncio.sleep(0.01)


async def greeted(client: Client) -> Client:
    """Wait until the controller has said who it is."""
    await until("the greeting", client.catalogs)
    return client


@pytest.mark.parametrize("name", NAMES)
async def test_a_controller_starts_on_every_recorded_device(name: str, folder: Path, machine: Machine) -> None:
    """It says what it is on, and serves a model there."""
    add(folder, "a")
    box = controller(folder, machine, recorded(name), memory={"budget": 2 * GIB})
    async with box, connected(folder / "r" / SOCKET_NAME) as client:
        await greeted(client)
        status = await client.call("status")

        assert recorded(name).engine.architecture == status["device"]["architecture"]
        assert "a" == (await client.granted("a", lease="1")).model
        placed = machine.box(OWNER, ModelName("a")).shown.cards
        assert [part.card for part in placed] == ([0] if name == "discrete-2" else [])  # the other one's driver is too old


async def test_a_box_that_changes_gets_a_new_life_that_adopts_the_old_workers(folder: Path, machine: Machine) -> None:
    """NVIDIA's runtime is registered: the controller begins anew, and the worker goes on."""
    box = recorded("orin-nano-jp7.2-iso")
    add(folder, "a")
    async with controller(folder, machine, box, memory={"budget": 8 * GIB}) as serving:
        async with connected(folder / "r" / SOCKET_NAME) as client:
            await greeted(client)
            first, run = client.instance, (await client.granted("a", lease="1")).run
            (folder / "r" / SOCKET_NAME).unlink()  # so that the next one is the new life's
            machine.told = replace(box.engine, runtimes=("nvidia", "runc"))
            await until("the old life has ended", lambda: client.is_cut)
        await until("the new life listens", (folder / "r" / SOCKET_NAME).exists)
        async with connected(folder / "r" / SOCKET_NAME) as client:
            await greeted(client)

            assert first != client.instance
            assert run == (await client.renewed("1", "a", run)).run
            assert not serving.done()


def orin(**changes: Any) -> tuple[RecordedSystem, EngineInfo]:
    """Return an Orin and its engine, changed."""
    box = recorded("orin-nano-jp7.2")
    return box.system, replace(box.engine, **changes)


async def watched(system: RecordedSystem, engine: MemoryDriver) -> asyncio.Task[None]:
    """Begin to watch."""
    return asyncio.create_task((await find_out(system, engine)).watch())


@pytest.mark.looptime
async def test_an_update_of_the_driver_is_seen(machine: Machine) -> None:
    """The release file says another one, and measurements hold no more."""
    system, info = orin()
    files = dict(system.files)
    machine.told = info
    watching = await watched(replace(system, files=files), MemoryDriver(OWNER, engine=machine))
    await asyncio.sleep(LOOK_S * 1.5)

    assert not watching.done()

    files[RELEASE_FILE] = files[RELEASE_FILE].replace("REVISION: 2.0", "REVISION: 2.1")
    await asyncio.sleep(LOOK_S)

    with pytest.raises(DeviceChangedError, match=r"l4t39\.2\.0.* and is .*l4t39\.2\.1"):
        await watching


@pytest.mark.looptime
async def test_an_engine_that_goes_away_changes_nothing_and_what_it_learns_elsewhere_neither(machine: Machine) -> None:
    """Nothing is known of it while it is away; and a runtime that is not NVIDIA's is none of ours."""
    system, info = orin()
    machine.told = info
    watching = await watched(system, MemoryDriver(OWNER, engine=machine))
    machine.went_away()
    await asyncio.sleep(LOOK_S * 2)
    machine.came_back()
    machine.told = replace(info, runtimes=(*info.runtimes, "crun"))
    await asyncio.sleep(LOOK_S * 2)

    assert not watching.done()
    watching.cancel()


@pytest.mark.looptime
async def test_a_box_whose_engine_was_away_at_the_start_is_known_without_its_ways(machine: Machine) -> None:
    """When the engine comes, that is a change."""
    system, info = orin()
    machine.told = info
    machine.went_away()
    identity = await find_out(system, MemoryDriver(OWNER, engine=machine))

    assert (GpuAccess.NONE, "39.2.0") == (identity.device.access, identity.device.l4t)

    machine.came_back()
    with pytest.raises(DeviceChangedError):
        await identity.watch()


@pytest.mark.looptime
async def test_a_gpu_that_is_not_to_be_used_is_there_and_reached_by_nobody(machine: Machine) -> None:
    """Images without CUDA are served as on a box without a GPU; its board is known, and no look finds a change."""
    system, info = orin()
    machine.told = info
    identity = await find_out(system, MemoryDriver(OWNER, engine=machine), use_gpu=False)
    watching = asyncio.create_task(identity.watch())
    machine.told = replace(info, cdi_folders=("/etc/cdi", "/var/run/cdi", "/opt/cdi"))
    await asyncio.sleep(LOOK_S * 2)

    assert ("cpu", False, "39.2.0") == (identity.device.fingerprint, identity.device.has_gpu, identity.device.l4t)
    assert not watching.done()
    watching.cancel()
