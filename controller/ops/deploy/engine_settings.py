"""
What a container engine's `daemon.json` must say for us, put into one that says other things already. Pure.

Nothing that somebody has decided is decided anew; everything that is added is read by a running engine when it is told to
reload, so that no container of anybody's ends.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from controller.ops.deploy.errors import UnfitError

NVIDIA: Final = {"path": "nvidia-container-runtime", "runtimeArgs": []}
"""The runtime as JetPack's own tools write it down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """
    A `daemon.json` as it should be.

    Attributes:
        text: its content.
        added: what was added, for people; nothing if it may stay as it is.

    """

    text: str
    added: tuple[str, ...]


def merge(text: str, *, jetson: bool, swarm: bool) -> Merged:
    """
    Add what is missing.

    Args:
        text: what is there; empty if there is no such file.
        jetson: workers may use the GPU by NVIDIA's runtime.
        swarm: the engine is one of a swarm, which cannot keep containers alive over its restart.

    Raises:
        UnfitError: the file is not one that an engine would take, and so not one to write over.

    """
    there = _read(text)
    wanted: dict[str, Any] = {}
    if not swarm and "live-restore" not in there:
        wanted["live-restore"] = True
    runtimes = there.get("runtimes", {})
    if jetson and "nvidia" not in runtimes:
        wanted["runtimes"] = {**runtimes, "nvidia": NVIDIA}
    return Merged(text=json.dumps(there | wanted, indent=4) + "\n", added=tuple(wanted))


def _read(text: str) -> dict[str, Any]:
    try:
        there = json.loads(text) if text.strip() else {}
    except ValueError as exc:
        raise UnfitError([f"/etc/docker/daemon.json is not JSON ({exc}): mend it, or move it away"]) from exc
    if not isinstance(there, dict) or not isinstance(there.get("runtimes", {}), dict):
        raise UnfitError(["/etc/docker/daemon.json is not a table of settings: mend it, or move it away"])
    return there
