"""
How long a caller will wait: the bound that holds and the time that is likely. Pure.

Callers are served in the order they came, but for two liberties: whoever asks for a model that is in memory may go ahead of an
older caller whose model is not, for one quantum; and a model's callers who had come when its turn began are served together. From
that follows the bound, by the reasoning of round-robin scheduling with a quantum
(Silberschatz et al., *Operating System Concepts*):

    wait <= sum over the other models j in the way of  turns_j * (quantum + longest request + load_j)
            + turns_i * (quantum + longest request + load_i)

where a model in the way has an older caller waiting or is in memory, and a model needs as many turns as it takes to serve its
older callers when every request is as long as a request may be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.spec import ModelName

LOAD_SLACK: Final = 4.0
"""A load may take this many times what it usually takes before the bound is wrong: disks are shared and caches go cold."""
LOAD_MARGIN_S: Final = 10.0
"""And this much longer: container start, an unlucky health check, a crash and its retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """
    One model's share of the queue.

    Attributes:
        model: which model.
        waiting: callers who came before the one this is computed for.
        parallel: how many it serves at once.
        load_s: what loading it usually takes.
        service_s: what a request usually takes.
        resident: it is in memory.
        busy: requests being served.

    """

    model: ModelName
    waiting: int
    parallel: int
    load_s: float
    service_s: float
    resident: bool
    busy: int


def bound_s(own: Line, others: Sequence[Line], *, quantum_s: float, request_limit_s: float) -> float:
    """Return the longest a caller of *own* can wait behind *others*."""
    if own.resident and own.waiting == 0 and own.busy < own.parallel:
        others = ()
    turn_s = quantum_s + request_limit_s
    total_s = 0.0
    for line in (*others, own):
        callers = line.waiting + (1 if line is own else 0)
        total_s += _turns(line, callers, quantum_s, request_limit_s) * (turn_s + line.load_s * LOAD_SLACK + LOAD_MARGIN_S)
    return total_s


def eta_s(own: Line, others: Sequence[Line]) -> float:
    """Return what a caller of *own* will probably wait."""
    in_the_way_s = sum(
        (0.0 if line.resident else line.load_s) + _batches(line) * line.service_s
        for line in others
        if line.waiting or not own.resident
    )
    own_s = 0.0 if own.resident else own.load_s
    if own.resident and own.waiting == 0 and own.busy < own.parallel:
        return 0.0
    return in_the_way_s + own_s + _batches(own) * own.service_s


def _turns(line: Line, callers: int, quantum_s: float, request_limit_s: float) -> int:
    per_turn = line.parallel * max(1, math.floor(quantum_s / request_limit_s))
    return max(1, math.ceil(callers / per_turn))


def _batches(line: Line) -> int:
    return math.ceil((line.waiting + line.busy) / line.parallel)
