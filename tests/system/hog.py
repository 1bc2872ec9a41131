"""A program that takes memory as fast as it may, and gives it back when it is told to or when its time is up."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PIECE_BYTES: Final = 32 * 1024 * 1024
BYTES_PER_S: Final = 1_000_000_000
LIFE_S: Final = 60.0
MOST_BYTES: Final = 6 * 1024**3
"""More than any test needs, and less than would endanger a machine that the test was allowed to run on."""

_PROGRAM: Final = f"""
import re, select, sys, time
target_bytes = int(sys.argv[1])
began_s = time.monotonic()
taken = []
def available_bytes():
    return int(re.search(r"MemAvailable: +(\\d+)", open("/proc/meminfo").read())[1]) * 1024
while available_bytes() > target_bytes and len(taken) < {MOST_BYTES // PIECE_BYTES}:
    taken.append(bytearray({PIECE_BYTES}))
    for place in range(0, {PIECE_BYTES}, 4096):
        taken[-1][place] = 1
    time.sleep(max(0.0, began_s + len(taken) * {PIECE_BYTES / BYTES_PER_S} - time.monotonic()))
print("full", len(taken) * {PIECE_BYTES}, flush=True)
select.select([sys.stdin], [], [], {LIFE_S})
"""


def available_bytes() -> int:
    """Return what the kernel says is available."""
    found = re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


@contextmanager
def hog(*, leave_bytes: int) -> Iterator[int]:
    """Take memory until no more than that is available, and hold it as long as the block runs; yields what was taken."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(leave_bytes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = process.stdout.readline().split()
            assert said[:1] == ["full"], "the hog was killed before it had what it wanted"
            yield int(said[1])
            assert process.poll() is None, "the hog was killed, or has ended before its time"
        finally:
            process.stdin.close()
            process.wait(LIFE_S)
