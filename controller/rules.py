"""The knobs of the scheduler. Immutable values."""

from dataclasses import dataclass

from controller.charges import Capacity, Cards


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The knobs, as `[scheduler]` in the configuration sets them; each is described there."""

    budget_bytes: int
    """Of the box's memory."""
    cards: Cards = ()
    """And of the memory of each card."""
    queue_limit: int = 512
    quantum_s: float = 10.0
    request_limit_s: float = 300.0
    min_residency_s: float = 2.0
    idle_unload_s: float = 300.0
    max_failures: int = 5
    backoff_s: float = 0.5
    batch_patience_s: float = 30.0
    adoption_grace_s: float = 3.0
    """After a start nothing adopted is evicted for this long: gateways renew the leases they hold."""

    @property
    def capacity(self) -> Capacity:
        """What workers may take together."""
        return Capacity(ram_bytes=self.budget_bytes, cards=self.cards)
