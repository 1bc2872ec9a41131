"""
Run the tests of the appliance: `python -m tests.appliance run`, or ask whether they need to run: `... unchanged`.

What a whole run without a failure was made on is written down in `passed.json`.
"""

import json
import os
import subprocess
import sys
from typing import Final
from xml.etree import ElementTree

from bench.stack import PROJECT
from tests.appliance import stamp
from tests.appliance.figures import FIGURES, KEPT

_USAGE: Final = 2


def run(options: list[str]) -> int:
    """Run the tests; only a whole run, with no options and nothing left out, is written down."""
    before, report = stamp.tree(), FIGURES.parent / "tests.xml"
    environ = dict(os.environ)
    if not options:
        environ.pop(KEPT, None)  # what is written down starts from nothing
    argv = [sys.executable, "-m", "pytest", "-m", "appliance", "tests/appliance", f"--junit-xml={report}", *options]
    code = subprocess.run(argv, cwd=PROJECT, env=environ, check=False).returncode
    if code or options:
        return code
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314 -- our own pytest has written it
    if int(suite.attrib["skipped"]) or stamp.tree() != before:
        sys.stderr.write("something was skipped, or the tree has changed meanwhile: this run is not written down\n")
        return code
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    stamp.write(tree=before, tests=int(suite.attrib["tests"]), figures=figures)
    sys.stderr.write(f"all {suite.attrib['tests']} tests have passed; commit {stamp.STAMP.name} with this tree\n")
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
