"""Why a request is refused before it is queued, in words that say what to do. Pure."""

from controller.charges import Account, Capacity, OnCard
from controller.errors import Reason, RefusedError
from controller.records import Record
from controller.spec import ModelName, ModelSpec
from controller.units import format_bytes, format_seconds


def unknown(model: ModelName) -> RefusedError:
    """Nobody knows this model."""
    return RefusedError(Reason.UNKNOWN_MODEL, f"no model {model!r} is registered")


def never_fits(spec: ModelSpec, *, capacity: Capacity, pinned: Account) -> RefusedError:
    """
    The model is larger than what a budget leaves.

    The answer says which budget, which figure was used and how to override it.
    """
    needed = spec.footprint
    details = {
        "footprint_bytes": needed.total_bytes,
        "footprint_source": needed.source.value,
        "budget_bytes": capacity.ram_bytes,
        "pinned_bytes": pinned.total_bytes,
    }
    if needed.gpu_bytes and needed.total_bytes + pinned.total_bytes <= capacity.ram_bytes:
        text = f"{_on_cards(spec, capacity, pinned)}; if it needs less, say so with `gpu_memory` in its model.toml"
        roomiest = max(capacity.cards, key=lambda part: part.size_bytes - pinned.card_bytes(part.card), default=OnCard(0, 0))
        details |= {
            "gpu_bytes": needed.gpu_bytes,
            "gpu_budget_bytes": roomiest.size_bytes,
            "gpu_pinned_bytes": pinned.card_bytes(roomiest.card),
        }
        return RefusedError(Reason.NEVER_FITS, text, details=details)
    beside = f" beside {format_bytes(pinned.total_bytes)} of pinned models" if pinned.total_bytes else ""
    text = (
        f"{spec.name} needs {format_bytes(needed.total_bytes)} ({needed.source.value}), and the budget is "
        f"{format_bytes(capacity.ram_bytes)}{beside}; if it needs less, say so with `memory` in its model.toml"
    )
    return RefusedError(Reason.NEVER_FITS, text, details=details)


def _on_cards(spec: ModelSpec, capacity: Capacity, pinned: Account) -> str:
    """Say what a model needs of cards, and what they have."""
    needed = spec.footprint
    budgets = ", ".join(
        f"GPU {card} {format_bytes(size_bytes)}"
        + (f" beside {format_bytes(pinned.card_bytes(card))} of pinned models" if pinned.card_bytes(card) else "")
        for card, size_bytes in capacity.cards
    )
    whole = f"{spec.name} needs {format_bytes(needed.gpu_bytes)} of a GPU's memory ({needed.source.value}), and "
    parts = "" if needed.spread.counts else f", which {spec.engine} cannot split"
    return f"{whole}the budgets are: {budgets}{parts}" if budgets else f"{whole}no GPU with memory of its own is here"


def resting(model: ModelName, record: Record, now: float) -> RefusedError:
    """The model has failed too often lately."""
    return RefusedError(Reason.UNAVAILABLE, record.why_resting(model), retry_after_s=record.retry_at_s - now)


def queue_full(waiting: int, *, limit: int, likely_s: float) -> RefusedError:
    """As many wait as may wait."""
    text = f"{waiting} callers are waiting, and no more than {limit} may; ask again later"
    return RefusedError(
        Reason.QUEUE_FULL, text, retry_after_s=max(1.0, likely_s), details={"waiting": waiting, "queue_limit": limit}
    )


def too_late(*, likely_s: float, deadline_s: float) -> RefusedError:
    """The caller would have gone before its answer could begin."""
    text = f"the answer could begin in {format_seconds(likely_s)}, and the caller waits {format_seconds(deadline_s)}"
    return RefusedError(Reason.TOO_LATE, text, retry_after_s=max(1.0, likely_s))


def pinned(model: ModelName) -> RefusedError:
    """A pinned model is not unloaded just so."""
    return RefusedError(Reason.CONFLICT, f"{model} is pinned; force the unload, or take `pinned` out of its model.toml")


def busy(model: ModelName, callers: int) -> RefusedError:
    """A busy model is not unloaded just so."""
    return RefusedError(Reason.CONFLICT, f"{model} is answering {callers} callers; wait for them, or force the unload")


def adopted(model: ModelName, grace_s: float) -> RefusedError:
    """Nobody can tell yet whether a model that ran before the start is busy."""
    text = f"{model} ran before this controller was started, and may be answering; ask again soon, or force the unload"
    return RefusedError(Reason.UNAVAILABLE, text, retry_after_s=max(1.0, grace_s))
