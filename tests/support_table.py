"""
README's table of engines and boxes, from what the engines themselves say of the recorded ones.

`python -m tests.support_table` prints it, to be put into README.md where the old one stands.
"""

import sys
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from controller.charges import OnCard
from controller.device import Device, Family
from controller.engines import ENGINES
from controller.engines.base import Engine, Site
from controller.probes.device import read_device
from tests.core.world import model_spec
from tests.devices import NAMES, recorded

BOXES: Final = {
    "orin-nano-jp6.2.1": "Jetson Orin Nano 8 GB",
    "orin-nano-jp6.2.2": "Jetson Orin Nano 8 GB",
    "orin-nano-jp7.2": "Jetson Orin Nano 8 GB",
    "orin-nano-jp7.2-iso": "the same, as the installer leaves it",
    "orin-nx-16-jp6.2": "Jetson Orin NX 16 GB",
    "agx-orin-64-jp6.1": "Jetson AGX Orin 64 GB",
    "agx-thor-jp7.2": "Jetson AGX Thor",
    "discrete-1": "NVIDIA card",
    "discrete-2": "two NVIDIA cards",
    "no-gpu": "no GPU",
}
"""What each recorded box is, in the order of the table."""

RUN: Final = frozenset({("no-gpu", "llama-cpp"), ("no-gpu", "transformers")})
"""What this project has run on such hardware, by itself and with its own tests."""


def table() -> str:
    """Write the table, and below it what the engines want that are refused somewhere."""
    assert set(BOXES) == set(NAMES), "every recorded box has a row"
    wants: list[str] = []
    rows = [_row(name, wants) for name in BOXES]
    head = ("box", "system", *(f"`{name}`" for name in ENGINES))
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    lines[1] = lines[1].replace(" ", "")
    notes = [f"- {_letter(number)}: {want}." for number, want in enumerate(wants)]
    return "\n".join([*lines, "", *notes]) + "\n"


def _row(name: str, wants: list[str]) -> tuple[str, ...]:
    box = recorded(name)
    device = read_device(box.system, box.engine)
    return (BOXES[name], _system(device), *(_cell(name, engine, device, wants) for engine in ENGINES.values()))


def _system(device: Device) -> str:
    if device.is_jetson:
        return f"JetPack {device.jetpack} ({device.l4t})"
    return f"driver {device.driver.partition('.')[0]}" if device.driver else "any"


def _cell(name: str, engine: Engine, device: Device, wants: list[str]) -> str:
    refusal = engine.refusal(device)
    if refusal:
        want = _want(refusal)
        if want not in wants:
            wants.append(want)
        return f"no, {_letter(wants.index(want))}"
    run = "run" if (name, engine.name) in RUN else "not run"
    return f"{_where(engine, device)}, {run}"


def _want(refusal: str) -> str:
    """Return what an engine wants: that comes before what it has found, unless all that is missing is a way to the GPU."""
    want, _, found = refusal.partition(", and ")
    return found.partition(";")[0] if found.startswith("no container") else want


def _where(engine: Engine, device: Device) -> str:
    spec = model_spec("a")
    if device.family is Family.DISCRETE:
        spec = replace(spec, cards=(OnCard(card=0, size_bytes=1),))
    here = PurePosixPath("/")
    site = Site(image="any", run_root=here, kv_root=here, threads=1, device=device)
    return "GPU" if engine.worker(spec, site).devices else "processors"


def _letter(number: int) -> str:
    return chr(ord("a") + number)


if __name__ == "__main__":
    sys.stdout.write(table())
