"""Try a fault: a copy of the core with the fault in it, and the unit tests run against that copy."""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.mutants.mutant import ROOT, Mutant

TESTS: Final = (
    "deploy_values",
    "deploy_engine_settings",
    "forge_tickets",
    "forge_room",
    "bundle_judging",
    "bundle_layout",
    "guard",
    "pace",
    "drift",
    "ops_targets",
    "flash",
    "builds",
    "auto_quantization",
    "engine_choice",
    "slots",
    "residency",
    "scheduler_[!f]*",
    "scheduler_failures",
    "planner",
    "readahead",
    "charges",
    "cards",
    "placement",
    "charging",
    "device",
    "footprint",
    "seal",
    "complaints",
    "gpu_memory",
    "engines",
    "engines_on_gpus",
    "edge_llm",
    "router",
    "gateway_absence",
    "gateway_fields",
    "tensorrt_llm",
    "llm_jetson",
    "reconcile",
    "forecast",
    "whole_loop_machine",
    "scheduler_fairness",
)
"""Patterns of names of unit tests, the quick ones first: the first failure is enough."""
LIMIT_S: Final = 300
CONFTEST: Final = """
from hypothesis import HealthCheck, Phase, settings
settings.register_profile(
    "mutants", max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],  # a fault found need not be a small one
)
settings.load_profile("mutants")
"""


def survives(mutant: Mutant | None, *, leave_out: int = 0) -> bool:
    """
    Run the unit tests of the core against a copy with this fault, or without one, and say whether all of them pass.

    A run that takes too long has found the fault too: the core never comes to an end.

    Args:
        mutant: the fault.
        leave_out: how many patterns of tests are not run, from the end, where the slow ones are.

    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        place = Path(folder)
        _copy(place)
        if mutant is not None:
            (place / mutant.path).write_text(mutant.source(), encoding="utf-8")
        files = _likely_first(_tests(TESTS[: len(TESTS) - leave_out]), "" if mutant is None else mutant.module)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-c", "pytest.ini", "-p", "no:cacheprovider", *files]
        environ = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        try:
            done = subprocess.run(command, cwd=place, env=environ, capture_output=True, timeout=LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            return False
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the tests did not run: {done.stdout.decode()[-2000:]}{done.stderr.decode()[-2000:]}")
    return done.returncode == 0


def _copy(place: Path) -> None:
    """Copy what the tests of the core need, and nothing that needs an engine."""
    shutil.copytree(ROOT / "controller", place / "controller", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("tests/devices", "tests/vendor", "tests/flash", "appliance/boards"):
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests/__init__.py", "appliance/README.md"):
        _copy_file(place, Path(name))
    for path in [*(ROOT / "tests/core").glob("*.py"), *(ROOT / path for path in _tests())]:
        _copy_file(place, path.relative_to(ROOT))
    (place / "tests/conftest.py").write_text(CONFTEST, encoding="utf-8")
    (place / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")


def _tests(names: Sequence[str] = TESTS) -> list[Path]:
    return [path.relative_to(ROOT) for name in names for path in sorted(ROOT.glob(f"tests/unit/test_{name}.py"))]


def _likely_first(files: Sequence[Path], module: str) -> list[str]:
    """Put the tests that are called like the module first: those find its faults, and the first failure ends a run."""
    noun = module.rpartition("/")[2]
    return [str(path) for path in sorted(files, key=lambda path: noun not in path.name)]


def _copy_file(place: Path, path: Path) -> None:
    (place / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / path, place / path)


def core_modules() -> list[str]:
    """Return the modules of the pure core, as the import contract lists them; of a package, all that are in it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pure = next(c for c in settings["tool"]["importlinter"]["contracts"] if c["name"].startswith("The pure core"))
    names = [name.removeprefix("controller.").replace(".", "/") for name in pure["source_modules"]]
    top = ROOT / "controller"
    found = [path for name in names for path in (top / f"{name}.py", *sorted((top / name).rglob("*.py"))) if path.is_file()]
    return ["__init__", *(path.relative_to(top).with_suffix("").as_posix() for path in found)]
