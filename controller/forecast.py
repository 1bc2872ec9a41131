"""
How long a caller will wait: the bound that holds and the time that is likely. Pure.

Callers are served in the order they came, but for two liberties: whoever asks for a model that is in memory may go ahead of an
older caller whose model is not, for one quantum; and a model's callers who had come when its turn began are served together. From
that follows the bound, by the reasoning of round-robin scheduling with a quantum
(Silberschatz et al., *Operating System Concepts*):

    wait <= sum over the models j in the way, the caller's own included, of  turns_j * (quantum + longest request + load_j)

where a model in the way has an older caller or is in memory, and a model needs as many turns as it takes to serve whom it serves
now and its older callers, when every request is as long as a request may be. A turn serves at least `parallel` callers, and so
many again for every longest request that fits into the quantum.

The bound holds as long as requests keep to their limit and loads to theirs (`LOAD_SLACK`, `LOAD_MARGIN_S`), no worker fails, and
neither catalog nor budget changes.
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
        parallel: how many it serves at once, at the box's pace and as those who wait for it count on.
        load_s: what loading it usually takes.
        service_s: what a request usually takes.
        resident: it is in memory and answers.
        busy: requests being served.
        gated: newcomers are held back, because it must go or be loaded anew.
        replicas: how many workers of it serve callers now. All but one may go at any moment, so the bound counts on one.

    """

    model: ModelName
    waiting: int
    parallel: int
    load_s: float
    service_s: float
    resident: bool
    busy: int
    gated: bool = False
    replicas: int = 1

    @property
    def free(self) -> bool:
        """A caller who comes now is served at once."""
        return self.resident and not self.gated and self.waiting == 0 and self.busy < self.parallel * self.replicas


def bound_s(
    own: Line, others: Sequence[Line], *, quantum_s: float, request_limit_s: float, patience_s: float | None = None
) -> float:
    """
    Return the longest a caller of *own* can wait behind *others*.

    Args:
        own: the caller's model.
        others: the models in the way.
        quantum_s: how long a model goes on serving newer callers while an older one waits for its memory.
        request_limit_s: the longest a request may take.
        patience_s: how long the caller lets newer callers of its own model go first, if it does.

    """
    if patience_s is None and own.free:
        others = ()
    lines = ((own, own.waiting + own.busy + 1), *((line, line.waiting + line.busy) for line in others))
    per_turn = max(1, math.floor(quantum_s / request_limit_s))
    total_s = patience_s or 0.0
    for line, callers in lines:
        turns = max(1, math.ceil(callers / (line.parallel * per_turn)))
        total_s += turns * (quantum_s + request_limit_s + line.load_s * LOAD_SLACK + LOAD_MARGIN_S)
    return total_s


def eta_s(own: Line, others: Sequence[Line]) -> float:
    """Return what a caller of *own* will probably wait."""
    if own.free:
        return 0.0
    stays = own.resident and not own.gated
    in_the_way = [line for line in others if line.waiting or not stays]
    return sum((0.0 if line.resident else line.load_s) + _batches(line) * line.service_s for line in in_the_way) + (
        (0.0 if stays else own.load_s) + _batches(own) * own.service_s
    )


def _batches(line: Line) -> int:
    return math.ceil((line.waiting + line.busy) / (line.parallel * line.replicas))
