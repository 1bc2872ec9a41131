"""What `windlass check` hears from a controller that runs."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.ops import survey
from controller.ops.check.values import NOT_TRIED, Tried
from controller.server import Server
from controller.wire import Catalog
from tests.controller.rig import running


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
