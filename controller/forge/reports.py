"""Builds as operators and callers see them: plain values and sentences. Pure."""

from typing import Any

from controller.forge.tickets import UNDER_WAY, State, Ticket
from controller.units import format_bytes, format_seconds


def build_row(ticket: Ticket, now: float) -> dict[str, Any]:
    """Describe one build for `/models` and `/builds`."""
    order = ticket.order
    # Until the catalog has been read again, nobody can be served from what has just been made.
    is_listed = ticket.once or order.done or ticket.state is not State.BUILT
    state = ticket.state if is_listed else State.FINISHING
    running = state in UNDER_WAY
    steps = order.recipe.steps
    return {
        "model": order.model,
        "state": state.value,
        "engine": order.recipe.engine,
        "quantization": order.key.quantization or None,
        "why": order.reason,
        "fingerprint": order.fingerprint,
        "progress": round(ticket.share, 3),
        "done_bytes": ticket.done_bytes if running else 0,
        "total_bytes": order.file.size_bytes if order.file else ticket.total_bytes,
        "step": steps[min(ticket.step, len(steps) - 1)].title if running else None,
        "step_number": ticket.step + 1 if running else None,
        "steps": len(steps),
        "seconds": round(now - ticket.since_s, 1) if running else None,
        "eta_s": round(ticket.left_s(now), 1) if running else None,
        "failures": ticket.failures,
        "problem": ticket.reason or None,
        "serving": _serving(ticket),
        "log": list(ticket.log),
    }


def _serving(ticket: Ticket) -> str | None:
    order = ticket.order
    if order.served is None:
        return None
    if order.served.engine != order.spec.engine:
        return f"{order.served.engine} meanwhile"
    if order.served.folder == order.source:
        return "the source"
    return "the engine file" if order.done else "an older engine file"


def sentence(ticket: Ticket, left_s: float) -> str:
    """Say to a caller why a model cannot be asked yet."""
    name, share = ticket.order.model, f"{ticket.share:.0%} of {format_bytes(ticket.total_bytes)}"
    match ticket.state:
        case State.BUILDING | State.FINISHING:
            return f"{name} is being built: {share} done, about {format_seconds(left_s)} left"
        case State.BUILT:
            return f"{name} has just been built, and is about to be registered"
        case State.VERIFYING:
            return f"{name} is being compared with its manifest, and served if it matches"
        case State.WAITING:
            return f"{name} is to be built, and waits: {ticket.reason}"
        case State.FAILED | State.CANCELLED:
            return f"{name} is not built: {ticket.reason}"
        case _:
            return f"{name} is to be built, and its turn has not come"
