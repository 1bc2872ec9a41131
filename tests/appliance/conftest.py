"""The machines that the tests share, and where their disks lie."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from bench.stack import BUILD
from tests.appliance.disk import Disk
from tests.appliance.vm import Vm, machine
from tests.conftest import _FAILED

TARGET: Final = "qemu-amd64"
IMAGE: Final = "WINDLASS_APPLIANCE_IMAGE"
"""Names another image than the newest one that was made here."""
TIMEOUT_S: Final = 1800

MachineMaker = Callable[..., Vm]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here time: its processors are made of software."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def image() -> Disk:
    """Return the image that `make image` has made; without one the tests that need it are errors, never skipped."""
    made = sorted((BUILD / "appliance" / TARGET).glob("*.img"), key=lambda path: path.stat().st_mtime)
    chosen = Path(os.environ[IMAGE]) if os.environ.get(IMAGE) else next(reversed(made), None)
    if chosen is None or not chosen.is_file():
        pytest.fail(f"this test needs an image, and there is none at {chosen or made}: run make image TARGET={TARGET}")
    return Disk(path=chosen, format="raw")


@pytest.fixture(scope="session")
def disks() -> Iterator[Path]:
    """Return a folder for disks, on a file system with room; it is gone when the tests are over."""
    BUILD.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="vm-", dir=BUILD))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def put_together(request: pytest.FixtureRequest) -> Iterator[MachineMaker]:
    """
    Return a function that puts a machine together around a disk.

    It is off; it is off again after the test, and is reported about if the test has failed.
    """
    with ExitStack() as running:
        made: list[Vm] = []

        def put(disk: Disk, **options: Any) -> Vm:  # noqa: ANN401 -- those of `machine`
            made.append(running.enter_context(machine(disk, **options)))
            return made[-1]

        yield put
        if request.node.stash.get(_FAILED, False):
            for vm in made:
                print(vm.report())  # noqa: T201 -- pytest shows it with the failure
