"""What the forge must know of the models and their memory, asked of the pool that has it."""

from pathlib import PurePosixPath

from controller.pool import Pool
from controller.spec import ModelName


class Tenancy:
    """The pool, as the forge sees it."""

    def __init__(self, pool: Pool) -> None:
        """Ask *pool*."""
        self._pool = pool

    def set_aside(self, what: str, size_bytes: int) -> None:
        """Keep that much of the budget from the models."""
        if size_bytes or what in self._pool.budget.aside:
            self._pool.set_aside(what, size_bytes)

    def may_set_aside(self, size_bytes: int) -> bool:
        """Say whether that much can be kept from the models without unloading a pinned one."""
        pinned_bytes = sum(spec.footprint.total_bytes for spec in self._pool.models.values() if spec.pinned)
        return size_bytes + pinned_bytes <= self._pool.budget_bytes

    @property
    def is_overdrawn(self) -> bool:
        """Models still hold more than they may."""
        return sum(worker.held_bytes for worker in self._pool.fleet.workers().values()) > self._pool.budget_bytes

    def in_use(self, folder: PurePosixPath) -> bool:
        """Say whether a model is in memory, or about to be, from this folder."""
        return any(
            spec.folder == folder and (spec.name in self._pool.scheduler.desired or self._pool.held_bytes(spec.name) > 0)
            for spec in tuple(self._pool.models.values())
        )

    def requests(self, model: ModelName) -> int:
        """Say how often a model was asked, as far as the ledger knows."""
        spec = self._pool.models.get(model)
        measured = self._pool.meter.ledger.find(self._pool.host.ledger_key(spec)) if spec else None
        return measured.requests if measured else 0
