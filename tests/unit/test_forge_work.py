"""A step of a build that failed: what it said of the cause."""

import pytest

from controller.forge.work import told_reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"event": "build.failed", "reason": "tokenizer.json is missing"}', "tokenizer.json is missing"),
        ('{"event": "build.done"}', ""),
        ('{"reason": 3}', ""),
        ('["reason"]', ""),
        ('{"event": "build.failed", "reason": "cut o', ""),
        ("main: failed to quantize model", ""),
    ],
)
def test_the_reason_is_taken_from_the_builder_s_last_line(line: str, reason: str) -> None:
    """As it was told, without the JSON around it; another tool's last line has none."""
    assert reason == told_reason(line)
