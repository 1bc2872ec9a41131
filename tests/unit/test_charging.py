"""What the end of a trial that takes GPU memory means."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from controller.charging import judge, parse_stages
from controller.state import Exit, ExitCause

LIMIT = 1024
OOM = Exit(cause=ExitCause.OUT_OF_MEMORY, code=137)
ENDED = Exit(cause=ExitCause.STOPPED, code=0)
FAILED = Exit(cause=ExitCause.CRASHED, code=3)


def stages(*charged: int, last: Mapping[str, Any] | None = None) -> list[Mapping[str, Any]]:
    """Return what the program writes that takes 300 bytes a step and is charged so much by then."""
    steps = [{"stage": "taken", "taken_bytes": 300 * n, "charged_bytes": bytes_} for n, bytes_ in enumerate(charged)]
    if steps:
        steps[0]["stage"] = "context"
    return [{"stage": "device"}, *steps, *([last] if last else [])]


def refusal(code: int, taken_bytes: int) -> Mapping[str, Any]:
    """Return how the program says that the driver refused."""
    return {"stage": "failed", "call": "cuMemAlloc", "code": code, "taken_bytes": taken_bytes}


@pytest.mark.parametrize(
    ("seen", "ended", "charged"),
    [
        (stages(100, 400, 700), OOM, True),
        (stages(100), OOM, True),
        (stages(), OOM, None),
        ([], OOM, None),
        (stages(100, 100, last={"stage": "done", "taken_bytes": LIMIT + 1}), ENDED, False),
        (stages(100, 100, last={"stage": "done", "taken_bytes": LIMIT}), ENDED, None),
        (stages(100, 400, 700, last=refusal(2, 600)), FAILED, True),
        (stages(100, 100, 110, last=refusal(2, 600)), FAILED, None),
        (stages(100, 250, 400, last=refusal(2, 600)), FAILED, True),
        (stages(-1, -1, last=refusal(2, 300)), FAILED, None),
        (stages(100, last=refusal(2, 0)), FAILED, None),
        (stages(100, 400, last=refusal(999, 300)), FAILED, None),
        (stages(last=refusal(100, 0)), FAILED, None),
        ([], Exit(cause=ExitCause.CRASHED, code=127, detail="no such file"), None),
    ],
)
def test_what_the_end_of_a_trial_means(seen: Sequence[Mapping[str, Any]], ended: Exit, charged: bool | None) -> None:
    """Only what can have no other cause is an answer."""
    verdict = judge(seen, ended, limit_bytes=LIMIT)

    assert charged is verdict.charged
    assert verdict.why


def test_lines_that_are_none_of_the_program_are_left_out() -> None:
    """The last one may be cut off where the kernel ended it."""
    text = 'warning: 1\n{"stage": "device"}\n[1]\n{"other": 1}\n{"stage": "taken", "taken_by'

    assert ({"stage": "device"},) == parse_stages(text)
