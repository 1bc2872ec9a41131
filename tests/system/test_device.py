"""The whole stack on a host that shows the files of a Jetson: it says what it is on, and begins anew when the release changes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.stack import Stack, output, place_model, stack, wait_until
from controller.errors import WindlassError
from controller.identity import LOOK_S
from controller.probes.jetson import RELEASE_FILE
from tests.devices import recorded
from tests.system.conftest import BUDGET, CONFIG, MINI, TWIN

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SHOWN = (RELEASE_FILE, "/sys/firmware/devicetree/base", "/var/lib/dpkg", "/sys/kernel/debug")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files of a board; the controller is shown some of them as those of its host."""
    root = recorded("orin-nano-jp7.2-iso").unpack(tmp_path_factory.mktemp("board"))
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


@pytest.fixture(scope="module")
def board(files: Path) -> Iterator[Stack]:
    """Run a stack on that board, with a model."""
    shown = [{"type": "bind", "source": f"{files}{path}", "target": f"/run/host{path}", "read_only": True} for path in SHOWN]
    compose = files.parent / "board.json"
    compose.write_text(json.dumps({"services": {"controller": {"volumes": shown}}}), encoding="utf-8")
    with stack("board", budget=BUDGET, config=CONFIG, beside=[compose]) as running:
        place_model(MINI, running.models / TWIN, manifest='memory = "100MiB"\n')
        running.wait_for_models(TWIN)
        yield running


def status(running: Stack) -> dict[str, object]:
    """Return what is said of the box, and since when."""
    told = running.api.get("/status")
    return {**told["device"], "uptime_s": told["uptime_s"]}


def test_the_board_is_known_and_an_update_of_it_cuts_nobody(board: Stack, files: Path) -> None:
    """Board, releases and GPU are told; when the release changes the controller lives anew, and the same worker goes on."""
    before = status(board)
    board.api.post("/load_model", {"model": TWIN})
    worker = _process(board)

    assert ("p3767-0005", "39.2.1", "7.2.1", "none") == (before["module"], before["l4t"], before["jetpack"], before["access"])
    assert [{"index": 0, "name": "Orin", "sm": "87", "memory_bytes": None}] == before["gpus"]

    release = Path(f"{files}{RELEASE_FILE}")
    text = release.read_text(encoding="utf-8")
    release.write_text(text.replace("REVISION: 2.1", "REVISION: 2.2"), encoding="utf-8")
    wait_until(lambda: _l4t(board) == "39.2.2", "the controller knows of the new release", 3 * LOOK_S)
    after = status(board)

    assert "7.2" == after["jetpack"]
    assert float(str(after["uptime_s"])) < LOOK_S
    assert worker == _process(board)
    assert "resident" == next(row["state"] for row in board.api.get("/models")["models"] if row["name"] == TWIN)


def _process(running: Stack) -> str:
    return output(["docker", "inspect", "--format", "{{.Id}} {{.State.Pid}}", running.worker(TWIN)])


def _l4t(running: Stack) -> object:
    try:
        return status(running)["l4t"]
    except WindlassError:  # between two lives nobody answers
        return None
