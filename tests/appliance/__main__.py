"""
Run files of the appliance's tests, or say which ones are due, since something has changed that they depend on.

    python -m tests.appliance run [NAME ...] [-- OPTIONS OF PYTEST]
    python -m tests.appliance due

Without a name all of them run. What has passed whole, with no options, is written down in `passed.json` as soon as it has.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import pytest

from bench.stack import BUILD, PROJECT
from tests.appliance import stamp
from tests.appliance.figures import FIGURES, KEPT

_USAGE: Final = 2


def run(names: list[str], options: list[str]) -> int:
    """Run these files of tests, one after another over one first start; what has passed is written down as soon as it has."""
    if unknown := set(names) - set(stamp.names()):
        sys.stderr.write(f"wanted names of {', '.join(stamp.names())}; got {', '.join(sorted(unknown))}\n")
        return _USAGE
    before, failed = stamp.trees(), []
    # What is written down starts from nothing: no disk of an earlier run, no test left out.
    counts = not options and KEPT not in os.environ
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vm-", dir=BUILD) as folder:
        for name in names or stamp.names():
            if _run_one(name, options, report=Path(folder, "tests.xml"), kept=os.environ.get(KEPT, folder)) != 0:
                failed.append(name)
            elif counts and stamp.trees()[name] == before[name]:
                told = read(Path(folder, "tests.xml"))
                figures = json.loads(FIGURES.read_text(encoding="utf-8")) if "boot" in told else {}
                stamp.write({name: file | {"tree": before[name]} for name, file in told.items()}, figures)
    sys.stderr.write(f"failed: {' '.join(failed)}\n" if failed else f"passed: {' '.join(names or stamp.names())}\n")
    return int(bool(failed))


def _run_one(name: str, options: list[str], *, report: Path, kept: str) -> int:
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "appliance",
        f"--junit-xml={report}",
        f"tests/appliance/test_{name}.py",
        *options,
    ]
    code = subprocess.run(argv, cwd=PROJECT, env=os.environ | {KEPT: kept}, check=False).returncode
    return 0 if options and code == pytest.ExitCode.NO_TESTS_COLLECTED else code


def read(report: Path) -> dict[str, dict[str, Any]]:
    """Return the files of tests of which every test has passed, with the number of tests and their seconds."""
    told: dict[str, dict[str, Any]] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 -- our own pytest has written it
        name = case.attrib["classname"].split(".")[2].removeprefix("test_")
        file = told.setdefault(name, {"tests": 0, "seconds": 0.0, "whole": True})
        file["tests"] += 1
        file["seconds"] += float(case.attrib["time"])
        file["whole"] &= len(case.findall("failure") + case.findall("error") + case.findall("skipped")) == 0
    return {name: {"tests": file["tests"], "seconds": round(file["seconds"])} for name, file in told.items() if file["whole"]}


def main(argv: list[str]) -> int:
    """Do what is asked."""
    match argv:
        case ["run", *rest]:
            cut = rest.index("--") if "--" in rest else len(rest)
            return run(rest[:cut], rest[cut + 1 :])
        case ["due"]:
            print(*stamp.due(stamp.trees(), stamp.passed()))  # noqa: T201 -- a program reads it
            return 0
        case _:
            sys.stderr.write(f"{__doc__}")
            return _USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
