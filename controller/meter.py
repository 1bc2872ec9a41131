"""Measures what the workers take and how they do, and writes it into journal and ledger."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from controller.drift import Drift
from controller.drivers.base import Usage
from controller.errors import StoreError
from controller.host import Host
from controller.journal import Journal, Served
from controller.probes.notices import Notices
from controller.spec import ModelName, ModelSpec
from controller.state import ExitCause, Worker
from controller.store.ledger import Ledger
from controller.swaps import Swaps
from controller.wire import Release

log: Final = structlog.get_logger()

FLUSH_S: Final = 15.0


class Meter:
    """
    Keeps the figures.

    Attributes:
        journal: what happened lately.
        ledger: what is known of each model.
        swaps: the loads and unloads under way.
        last_load_s: how long the last load of each model took, victims' leaving included.
        problem: why measurements are not written down; empty while they are.
        pace: the share of full speed that the box reaches now: what is measured is kept as what it would be at full speed.

    """

    def __init__(self, *, ledger: Ledger, host: Host, clock: Callable[[], float]) -> None:
        """Start with what the ledger knows."""
        self.journal = Journal()
        self.ledger = ledger
        self.problem = ""
        self.pace = 1.0
        self._host = host
        self._clock = clock
        self.last_load_s: dict[ModelName, float] = {}
        self.swaps = Swaps(clock)
        self._measured: Callable[[], None] = lambda: None

    def on_measured(self, hook: Callable[[], None]) -> None:
        """Call *hook* when a measurement may have changed a footprint."""
        self._measured = hook

    async def keep_flushing(self) -> None:
        """Write the ledger down until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self._flush()

    def saw_memory(self, spec: ModelSpec, usage: Usage, *, cards: int = 0) -> None:
        """Note the memory of a ready worker that lies on so many cards; of one that was seen only in part nothing is known."""
        if usage.gpu_unseen:
            return
        self.ledger.saw_memory(
            self._host.ledger_key(spec),
            anon_bytes=usage.private_bytes,
            mapped_bytes=usage.file_bytes,
            gpu_bytes=_as_on_one_card(spec, usage.gpu_bytes, cards=cards),
        )

    def ready(self, spec: ModelSpec, notices: Notices | None = None) -> float | None:
        """Note that a worker answers, and return the seconds its load took, if it was one."""
        load = self.swaps.arrived(spec, notices)
        if load is None:
            return None
        self.journal.add(load)
        load_s = load.start_s + load.ready_s
        self.last_load_s[spec.name] = load.total_s
        self.ledger.saw_load(self._host.ledger_key(spec), load_s=load_s)
        return load_s

    def usual_load_s(self, spec: ModelSpec) -> float:
        """Return how long a load of this model takes on the average of the last ones: one load alone says little."""
        measured = self.ledger.find(self._host.ledger_key(spec))
        return measured.load_s if measured and measured.load_s else spec.load_s

    def stopped(self, worker: Worker) -> bool:
        """Note that a worker is not running; true if that is news and was asked for."""
        unload = self.swaps.departed(worker)
        if unload is not None:
            self.journal.add(unload)
        return unload is not None

    def failed(self, worker: Worker, spec: ModelSpec | None) -> None:
        """Note that a worker ended without being asked to."""
        ended = worker.exit
        assert ended is not None, "a worker that failed has ended"
        self.journal.failed()
        log.warning("worker.failed", model=worker.model, cause=ended.cause.value, code=ended.code, detail=ended.detail)
        if spec is None or not ended.cause.is_of_memory:
            return
        key = self._host.ledger_key(spec)
        if ended.cause is ExitCause.OUT_OF_GPU_MEMORY and worker.cards:
            kept_bytes = sum(size_bytes for _, size_bytes in worker.cards)
            self.ledger.saw_too_little_on_cards(key, kept_bytes=_as_on_one_card(spec, kept_bytes, cards=len(worker.cards)))
        else:
            self.ledger.saw_too_little(key, limit_bytes=worker.memory_bytes)
        self._measured()

    def served(self, spec: ModelSpec | None, model: ModelName, report: Release, *, waited_s: float, total_s: float) -> None:
        """Note a lease that was given back."""
        self.journal.add(
            Served(
                model=model,
                at_s=self._clock(),
                outcome=report.outcome,
                waited_s=waited_s,
                first_token_s=report.first_token_s,
                total_s=total_s,
                prompt_tokens=report.prompt_tokens,
                completion_tokens=report.completion_tokens,
            )
        )
        if report.first_token_s is not None:
            self.journal.first_token(model, report.first_token_s)
        if spec is None or report.outcome != "ok":
            return
        decoding_s = (report.total_s or 0.0) - (report.first_token_s or 0.0)
        later_tokens = report.completion_tokens - 1
        speed = later_tokens / decoding_s if later_tokens > 0 and decoding_s > 0 and report.first_token_s else 0.0
        tokens = report.prompt_tokens + report.completion_tokens
        self.ledger.saw_request(self._host.ledger_key(spec), tokens=tokens, tokens_per_s=speed / self.pace)

    def drifted(self, spec: ModelSpec, worker: Worker, drift: Drift) -> None:
        """Have the figure of a model that has outgrown it raised at once."""
        if drift.thrashes:
            self.ledger.saw_too_little(self._host.ledger_key(spec), limit_bytes=worker.memory_bytes)
        self._measured()

    async def _flush(self) -> None:
        try:
            await asyncio.to_thread(self.ledger.flush)
        except StoreError as exc:
            self.problem = str(exc)
            log.warning("ledger.not_written", error=str(exc))
            return
        self.problem = ""
        if self.ledger.take_news():  # not for every request served: describing ten thousand models anew takes a while
            self._measured()


def _as_on_one_card(spec: ModelSpec, size_bytes: int, *, cards: int) -> int:
    """Take off what is there only because a model is split over several cards."""
    return max(0, size_bytes - max(0, cards - 1) * spec.footprint.gpu_each_bytes)
