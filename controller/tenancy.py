"""What the forge must know of the models and their memory, asked of the pool that has it."""

from pathlib import PurePosixPath

from controller.charges import NOTHING, Account, Charge, OnCard
from controller.pool import Pool
from controller.spec import ModelName


class Tenancy:
    """The pool, as the forge sees it."""

    def __init__(self, pool: Pool) -> None:
        """Ask *pool*."""
        self._pool = pool

    def set_aside(self, what: str, charge: Charge) -> None:
        """Keep that much of the budgets from the models."""
        if charge != NOTHING or what in self._pool.budget.aside:
            self._pool.set_aside(what, charge)

    def may_set_aside(self, charge: Charge) -> bool:
        """Say whether that much can be kept from the models without unloading a pinned one."""
        return self._pinned().fits(self._pool.budget.left, charge)

    def free_card(self) -> OnCard | None:
        """Return the card that a build can have for itself with the least harm to models, none of them pinned there."""
        committed, pinned = self._pool.scheduler.committed, self._pinned()
        cards = [part for part in self._pool.budget.left.cards if not pinned.card_bytes(part.card) and part.size_bytes > 0]
        return min(cards, key=lambda part: (committed.card_bytes(part.card), -part.size_bytes, part.card), default=None)

    @property
    def is_overdrawn(self) -> bool:
        """Models still hold more than they may, each for itself."""
        holding = (worker for worker in self._pool.fleet.workers().values() if worker.holds)
        held = Account(Charge(total_bytes=worker.memory_bytes, cards=worker.cards) for worker in holding)
        return not held.fits(self._pool.budget.left)

    def _pinned(self) -> Account:
        """Return what pinned models take, in memory or not: all of them are to be."""
        pinned = [spec for spec in self._pool.models.values() if spec.pinned]
        places = {**self._pool.scheduler.places, **{m: w.cards for m, w in self._pool.workers.items()}}
        return Account(Charge(total_bytes=spec.footprint.total_bytes, cards=places.get(spec.name, ())) for spec in pinned)

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
