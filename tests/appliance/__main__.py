"""
Run files of the appliance's tests, or say which ones are due, since something has changed that they depend on.

    python -m tests.appliance run [NAME ...] [-- OPTIONS OF PYTEST]
    python -m tests.appliance due

Without a name all of them run. What has passed whole, with no options, is written down in `passed.json`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from bench.stack import PROJECT
from tests.appliance import stamp
from tests.appliance.figures import FIGURES, KEPT

_USAGE: Final = 2


def run(names: list[str], options: list[str]) -> int:
    """Run these files of tests; those of which every test has passed are written down."""
    if unknown := set(names) - set(stamp.names()):
        sys.stderr.write(f"wanted names of {', '.join(stamp.names())}; got {', '.join(sorted(unknown))}\n")
        return _USAGE
    before, report, environ = stamp.trees(), FIGURES.parent / "tests.xml", dict(os.environ)
    if not options:
        environ.pop(KEPT, None)  # what is written down starts from nothing
    files = [f"tests/appliance/test_{name}.py" for name in names or stamp.names()]
    argv = [sys.executable, "-m", "pytest", "-m", "appliance", f"--junit-xml={report}", *files, *options]
    code = subprocess.run(argv, cwd=PROJECT, env=environ, check=False).returncode
    if not options and report.is_file():
        now = stamp.trees()
        whole = {name: told | {"tree": now[name]} for name, told in read(report).items() if now[name] == before[name]}
        stamp.write(whole, json.loads(FIGURES.read_text(encoding="utf-8")) if "boot" in whole else {})
        sys.stderr.write(f"passed, and written down in {stamp.STAMP.name}: {', '.join(whole) or 'nothing'}\n")
    return code


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
