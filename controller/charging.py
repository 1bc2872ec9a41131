"""
What the end of a trial means that takes GPU memory beyond a container's limit: whether the limit covers it. Pure.

`trial.py` makes the trial. What could have another cause as well is no answer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controller.state import Exit, ExitCause

_OUT_OF_MEMORY: Final = 2
"""CUDA's own code for it."""

Stage = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from a trial: whether the limit covers GPU memory, `None` if it does not show, and why."""

    charged: bool | None
    why: str


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Read what the program wrote; a line that is cut off, or another's, is left out."""
    stages = []
    for line in text.splitlines():
        try:
            stage = json.loads(line)
        except ValueError:
            continue
        if isinstance(stage, dict) and "stage" in stage:
            stages.append(stage)
    return tuple(stages)


def judge(stages: Sequence[Stage], ended: Exit, *, limit_bytes: int) -> Verdict:
    """
    Say what the end of a trial means.

    Killed for want of memory while it took GPU memory: covered. Beyond the limit and alive: not covered. Refused by the driver:
    covered if the container was charged for about what it had taken; otherwise something else was short.
    """
    last = stages[-1] if stages else {}
    if ended.cause is ExitCause.OUT_OF_MEMORY:
        return _killed(stages)
    match last.get("stage"):
        case "done":
            return _survived(int(last.get("taken_bytes", 0)), limit_bytes)
        case "failed":
            return _refused(last, _growth(stages))
    return Verdict(charged=None, why=f"it ended with {ended.cause.value}, status {ended.code}: {ended.detail}".rstrip(": "))


def _killed(stages: Sequence[Stage]) -> Verdict:
    if any(stage["stage"] == "context" for stage in stages):
        return Verdict(charged=True, why="the kernel ended it at its limit while it took GPU memory")
    return Verdict(charged=None, why="it was ended before it took anything: CUDA itself did not fit into the limit")


def _survived(taken_bytes: int, limit_bytes: int) -> Verdict:
    if taken_bytes > limit_bytes:
        return Verdict(charged=False, why="it took more than its limit on the GPU, and nothing happened")
    return Verdict(charged=None, why="it took less than its limit")


def _refused(last: Stage, growth_bytes: int | None) -> Verdict:
    taken_bytes = int(last.get("taken_bytes", 0))
    if last.get("code") != _OUT_OF_MEMORY or growth_bytes is None or not taken_bytes:
        return Verdict(charged=None, why=f"{last.get('call')} failed with {last.get('code')}")
    if growth_bytes * 2 >= taken_bytes:
        return Verdict(charged=True, why="the driver refused at the limit, and the container was charged for what it had")
    return Verdict(charged=None, why="the driver refused, and the container was not charged: the GPU's memory was short")


def _growth(stages: Sequence[Stage]) -> int | None:
    """Return by how much more the container was charged at its last step than before the first."""
    charged = [int(stage.get("charged_bytes", -1)) for stage in stages if stage["stage"] in {"context", "taken"}]
    return charged[-1] - charged[0] if charged and min(charged[0], charged[-1]) >= 0 else None
