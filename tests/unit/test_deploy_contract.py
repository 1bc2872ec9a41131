"""What the modules of a deploy say of themselves is held to."""

import tomllib
from pathlib import Path


def test_pure_modules_are_listed() -> None:
    """What is called pure here is held to it by the import contracts."""
    project = Path(__file__).parents[2]
    contracts = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    pure = next(one["source_modules"] for one in contracts if "pure core" in one["name"])
    called = {
        f"controller.ops.deploy.{file.stem}"
        for file in (project / "controller/ops/deploy").glob("*.py")
        if file.read_text(encoding="utf-8").partition("\n\n")[0].rstrip('"').rstrip().endswith("Pure.")
    }

    assert called - set(pure) == set()
    assert {"controller.ops.deploy.layers", "controller.ops.deploy.fit"} <= called
