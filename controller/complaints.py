"""
What a program writes when it got no memory of the GPU, and ends.

The kernel kills nobody for that: the driver says no, the program says so in its own words and ends like any that crashed.
Only its last lines count, since some say it and go on with less. Pure.
"""

import re
from typing import Final

LINES: Final = 40
"""How far from the end of its log a program says why it ends; a traceback comes after."""
LONGEST: Final = 200

_SAYS: Final = re.compile(
    "|".join(
        (
            r"NvMapMemAlloc\w*.*error 12\b",  # the driver of a Jetson: ENOMEM
            r"CUDA out of memory",  # PyTorch
            r"cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY",  # the names, in whatever sentence
            r"CUDA(?: runtime| driver)? (?:error|failure)[^\n]{0,60}out of memory",
            r"cuda\w*Malloc\w*[^\n]{0,80}out of memory|Cuda Runtime \(out of memory\)",  # llama.cpp; TensorRT
            r"(?:unable|failed) to allocate CUDA\d* buffer",  # llama.cpp
        )
    ),
    re.IGNORECASE,
)


def gpu_memory_complaint(log: str) -> str:
    """Return the last line that says that the GPU had no memory for it; empty if none does."""
    for line in reversed(log.replace("\r", "\n").splitlines()[-LINES:]):
        if _SAYS.search(line):
            return line.strip()[:LONGEST]
    return ""
