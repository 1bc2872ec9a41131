"""A box that gets hot, as its kernel would say it: the whole stack serves fewer callers at once, says why, and loses nobody."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.stack import Stack, place_model, stack, wait_until
from controller.pace import FALL_S, MUCH, RISE_S
from controller.pacing import LOOK_S
from tests.system.conftest import BUDGET, CONFIG, MINI, TWIN
from tests.system.talk import PATIENCE_S, Caller, leases, slowly

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

CROWD = 4
COOL, HOT, LIMIT = "52000", "101500", "99000"
MARGIN_S = 3 * LOOK_S


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a thermal zone that does as it is told; the controller is shown it in place of the kernel's."""
    folder = tmp_path_factory.mktemp("thermal")
    zone = folder / "thermal_zone0"
    zone.mkdir()
    texts = {"type": "tj-thermal", "temp": COOL, "trip_point_0_type": "passive", "trip_point_0_temp": LIMIT}
    for name, text in texts.items():
        (zone / name).write_text(text + "\n", encoding="ascii")
    for path in (folder, zone):
        path.chmod(0o755)
    return zone


@pytest.fixture(scope="module")
def board(zone: Path) -> Iterator[Stack]:
    """Run a stack on that board, with a model that answers four callers at once."""
    shown = {"type": "bind", "source": str(zone.parent), "target": "/run/host/sys/class/thermal", "read_only": True}
    compose = zone.parent.parent / "heat.json"
    compose.write_text(json.dumps({"services": {"controller": {"volumes": [shown]}}}), encoding="utf-8")
    with stack("heat", budget=BUDGET, config=CONFIG, beside=[compose]) as running:
        place_model(MINI, running.models / TWIN, manifest=f'memory = "100MiB"\nparallel = {CROWD}\n')
        running.wait_for_models(TWIN)
        yield running


class Crowd:
    """Callers who ask at the same time, each for a long answer, and hear it to its end."""

    def __init__(self, running: Stack, count: int) -> None:
        self.ends: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(running.url,)) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def wait(self) -> list[str]:
        """Return how each of them ended."""
        for thread in self._threads:
            thread.join(PATIENCE_S)
        return self.ends

    def _ask(self, url: str) -> None:
        caller = Caller(url)
        with caller.stream(TWIN) as stream:
            stream.rest()
            self.ends.append(str(stream.finish_reason))
        caller.close()


def factor(running: Stack) -> float:
    """Return how fast the box is said to be."""
    return float(running.api.get("/status")["pace"]["factor"])


def test_a_hot_box_serves_fewer_callers_at_once_until_it_has_cooled(board: Stack, zone: Path) -> None:
    """Four ask: two are answered while it is hot, all four when it is not; all of it is said, and everyone is answered."""
    assert (factor(board), board.api.get("/health")["status"]) == (1.0, "ok")
    (zone / "temp").write_text(HOT, encoding="ascii")
    wait_until(lambda: factor(board) == MUCH, "the heat counts", FALL_S + MARGIN_S)

    health = board.api.get("/health")
    assert health["status"] == "degraded"
    assert "tj-thermal is at 102 degrees C and slows the box down from 99 on" in health["reasons"]

    with slowly(board, TWIN):
        crowd = Crowd(board, CROWD)
        wait_until(lambda: len(board.api.get("/status")["queue"]) == CROWD // 2, "two wait", PATIENCE_S)
        assert leases(board, TWIN) == CROWD // 2

        (zone / "temp").write_text(COOL, encoding="ascii")
        wait_until(lambda: factor(board) == 1.0, "it has cooled", RISE_S + MARGIN_S)
        wait_until(lambda: leases(board, TWIN) == CROWD, "all are answered", MARGIN_S)
    assert ["length"] * CROWD == crowd.wait()
    assert board.api.get("/health")["status"] == "ok"
