"""
Run the tests of the appliance: `python -m tests.appliance run`, or ask whether they need to run: `... unchanged`.

What a whole run without a failure was made on is written down in `passed.json`.
"""

import json
import os
import sys
from typing import Final

import pytest

from tests.appliance import stamp
from tests.appliance.conftest import KEPT
from tests.appliance.figures import FIGURES

_USAGE: Final = 2


class Count:
    """Counts the tests of a run that have passed, and those that were not tried."""

    def __init__(self) -> None:
        """Begin with none."""
        self.passed = 0
        self.untried = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at how a part of a test has ended."""
        self.passed += report.when == "call" and report.passed
        self.untried += report.skipped

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Look at what is left out of a run."""
        self.untried += len(items)


def run(options: list[str]) -> int:
    """Run the tests; only a whole run, with no options and nothing left out, is written down."""
    before, count = stamp.tree(), Count()
    if not options:
        os.environ.pop(KEPT, None)  # what is written down starts from nothing
    code = int(pytest.main(["-m", "appliance", "tests/appliance", *options], plugins=[count]))
    if code == 0 and not options and not count.untried and stamp.tree() == before:
        figures = json.loads(FIGURES.read_text(encoding="utf-8"))
        stamp.write(tree=before, tests=count.passed, figures=figures)
        sys.stderr.write(f"all {count.passed} tests of the appliance have passed; commit {stamp.STAMP.name} with this tree\n")
    return code


def unchanged() -> int:
    """Say whether all tests have passed on a tree like this one; exit code 0 if so."""
    last, now = stamp.passed().get("tree"), stamp.tree()
    if last == now:
        sys.stderr.write(f"the appliance is as it was when all of its tests have passed ({now[:12]}): they are not run again\n")
        return 0
    sys.stderr.write(
        f"the appliance is not what its tests have passed on ({now[:12]}, then {str(last)[:12]}): they are to be run\n"
    )
    return 1


def main(argv: list[str]) -> int:
    """Do what is asked."""
    match argv:
        case ["run", *options]:
            return run(options)
        case ["unchanged"]:
            return unchanged()
        case _:
            sys.stderr.write(f"{__doc__}")
            return _USAGE


sys.exit(main(sys.argv[1:]))
