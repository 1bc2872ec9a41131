"""Why a request is refused before it is queued, in words that say what to do. Pure."""

from controller.errors import Reason, RefusedError
from controller.records import Record
from controller.spec import ModelName, ModelSpec
from controller.units import format_bytes, format_seconds


def unknown(model: ModelName) -> RefusedError:
    """Nobody knows this model."""
    return RefusedError(Reason.UNKNOWN_MODEL, f"no model {model!r} is registered")


def never_fits(spec: ModelSpec, *, budget_bytes: int, pinned_bytes: int) -> RefusedError:
    """The model is larger than what the budget leaves; the answer says which figure was used and how to override it."""
    beside = f" beside {format_bytes(pinned_bytes)} of pinned models" if pinned_bytes else ""
    text = (
        f"{spec.name} needs {format_bytes(spec.footprint.total_bytes)} ({spec.footprint.source.value}), and the budget is "
        f"{format_bytes(budget_bytes)}{beside}; if it needs less, say so with `memory` in its model.toml"
    )
    details = {
        "footprint_bytes": spec.footprint.total_bytes,
        "footprint_source": spec.footprint.source.value,
        "budget_bytes": budget_bytes,
        "pinned_bytes": pinned_bytes,
    }
    return RefusedError(Reason.NEVER_FITS, text, details=details)


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
