"""What a controller that runs tells of the box, and what `windlass check` hears of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.ops import survey
from controller.ops.check.values import NOT_TRIED, Tried
from controller.server import Server
from controller.units import GIB
from controller.wire import Catalog
from tests.controller.rig import Machine, running
from tests.controller.test_identity import SOCKET_NAME, controller, greeted
from tests.controller.wire_client import connected
from tests.devices import recorded


def environment(folder: Path) -> dict[str, str]:
    """Point everything at a folder, and at an engine that is not there."""
    return {
        "WINDLASS_HOME": str(folder / "home"),
        "WINDLASS_RUN": str(folder / "run"),
        "WINDLASS_LISTEN": "nonsense",
        "DOCKER_HOST": f"unix://{folder}/none.sock",
    }


STATUS: dict[str, Any] = {
    "disk": {"read_bytes_per_s": 1_700_000_000},
    "device": {"gpu_memory_charged": False, "access": "runtime"},
}


@pytest.mark.parametrize(
    ("status", "heard"),
    [
        (STATUS, Tried(read_bytes_per_s=1_700_000_000, gpu_memory_charged=False, uses_gpu=True)),
        (
            {"disk": {"read_bytes_per_s": None}, "device": {"gpu_memory_charged": None, "access": "none"}},
            Tried(uses_gpu=False),
        ),
        ({"disk": {}}, NOT_TRIED),
        (None, NOT_TRIED),
    ],
)
async def test_what_a_controller_has_found_out_is_heard(status: object, heard: Tried, tmp_path: Path) -> None:
    """The speed of the disk, whether limits hold GPU memory, and whether workers get the GPU; an odd answer says nothing."""

    async def answer(_: dict[str, Any]) -> object:
        return status

    (tmp_path / "run").mkdir()
    async with running(tmp_path, []) as rig:
        server = Server(pool=rig.pool, verbs={"status": answer}, instance="life-1", catalog=lambda: Catalog(models=(), keys=()))
        async with server.listening(tmp_path / "run" / "controller.sock"):
            facts = await asyncio.to_thread(survey.survey, environment(tmp_path), config=None)

    assert heard == facts.tried


def test_without_a_controller_nothing_was_tried(tmp_path: Path) -> None:
    """And everything else is looked at all the same."""
    facts = survey.survey(environment(tmp_path), config=None)

    assert NOT_TRIED == facts.tried
    assert facts.condition.kernel_arguments


@pytest.mark.parametrize(
    ("name", "mode", "factor"),
    [
        ("orin-nano-jp6.2.1", "15W", 0.667),
        ("orin-nano-jp7.2", "MAXN_SUPER", 1.0),
        ("orin-nx-16-jp6.2", "25W", 0.348),
        ("no-gpu", None, 1.0),
    ],
)
async def test_a_controller_goes_by_the_power_mode_of_its_board(
    name: str, mode: str | None, factor: float, folder: Path, machine: Machine
) -> None:
    """It says the mode by its name, and how fast the box is in it; a mode is a decision, so nothing is wrong."""
    box = controller(folder, machine, recorded(name), memory={"budget": 2 * GIB})
    async with box, connected(folder / "r" / SOCKET_NAME) as client:
        await greeted(client)
        status = await client.call("status")
        while status["pace"]["mode"] != mode:  # it looks for the first time as soon as it runs
            await asyncio.sleep(0.01)
            status = await client.call("status")

        pace = status["pace"]
        assert (factor, False) == (pytest.approx(pace["factor"], abs=0.001), pace["throttled"])
        assert pace["reasons"] == [] if factor == 1.0 else "the power mode is" in pace["reasons"][0]
        assert not any("power mode" in reason for reason in status["reasons"])
