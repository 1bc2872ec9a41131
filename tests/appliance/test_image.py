"""The image itself, without starting it: two builds from nothing are the same."""

import subprocess
import sys

import pytest

from bench.stack import PROJECT
from tests.appliance.figures import TARGET

pytestmark = pytest.mark.appliance


@pytest.mark.timeout(1800)
def test_two_builds_have_the_same_files_and_packages() -> None:
    """Every package is fetched again for each of them."""
    argv = [sys.executable, "-m", "controller.ops.appliance.image", "compare", TARGET]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout[-4000:] + done.stderr[-2000:]
