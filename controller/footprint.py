"""
How many bytes a model needs: what the operator says, else what was measured, else what its engine computes from its header.

The kernel charges a container with its private memory and with the pages of the weights it reads, so a limit must hold both:

    needed = weights + private peak + margin

A measurement replaces the estimate when it is larger, always; when it is smaller, only after the model has been asked for half of
its context at least once, since buffers that nobody has used yet do not show. It never falls below what was seen, and after the
kernel killed a run at its limit, or dropped its weights there again and again, the next one gets a quarter more than that limit.

The memory of cards follows the same rules with a figure of its own. Where GPU and processors share one memory there is only one:
what a worker holds for its GPU is private memory like the rest.

A new figure makes the container again, so it must be worth that: figures are rounded up in steps, and a measurement that would
save less than a twentieth confirms the estimate instead of changing it.
"""

from dataclasses import dataclass, replace
from typing import Final

from controller.spec import Footprint, FootprintSource
from controller.units import MIB

MARGIN_BYTES: Final = 32 * MIB
"""Kept above a measured peak: HTTP bodies, page tables, the pages of a conversation being written."""
STEP_BYTES: Final = 16 * MIB
"""Measured footprints are multiples of this."""
TRUSTED_SHARE: Final = 0.5
"""The share of its context a model must have been asked for before a measurement may lower its footprint."""
WORTHWHILE_SHARE: Final = 0.05
"""The least a measurement must save, as a share of the estimate, before it changes it."""
AFTER_OUT_OF_MEMORY: Final = 1.25
"""The next limit, as a multiple of the one at which the kernel killed the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """
    What the ledger knows of one model, run by one image of one engine, with one context, on one device.

    Attributes:
        anon_bytes: the most private memory seen, with what was held for a GPU that shares the box's memory.
        mapped_bytes: the most pages of files seen in memory; those that another worker had read before are not among them.
        longest_tokens: the longest request served, prompt and answer together.
        out_of_memory_bytes: the largest limit that was too small for it: the kernel killed it there, or its weights did not stay
            in memory; 0 for never.
        load_s: seconds from the decision to ready, the recent ones weighing more; 0 if it never became ready.
        load_worst_s: a slow maximum of the same: a slower load raises it at once, faster ones let it sink.
        tokens_per_s: decoding speed of one caller, the recent ones weighing more; 0 if unknown.
        loads: how often it became ready.
        requests: how many requests it has served.
        gpu_bytes: the most memory of cards seen, as if it all lay on one of them; 0 if nobody could see it.
        gpu_out_of_memory_bytes: the most that was kept for it there and was too little; 0 for never.

    """

    anon_bytes: int = 0
    mapped_bytes: int = 0
    longest_tokens: int = 0
    out_of_memory_bytes: int = 0
    load_s: float = 0.0
    load_worst_s: float = 0.0
    tokens_per_s: float = 0.0
    loads: int = 0
    requests: int = 0
    gpu_bytes: int = 0
    gpu_out_of_memory_bytes: int = 0

    def describes_as(self, other: "Measured") -> bool:
        """Whether a model is described alike by both: by its memory and the time of its load, not by what it has served."""
        return self._described == other._described

    @property
    def _described(self) -> tuple[int | float, ...]:
        in_ram = self.anon_bytes, self.longest_tokens, self.out_of_memory_bytes, self.load_s
        return *in_ram, self.gpu_bytes, self.gpu_out_of_memory_bytes


def resolve(
    estimate: Footprint,
    *,
    override_bytes: int | None = None,
    gpu_override_bytes: int | None = None,
    measured: Measured | None = None,
    context_tokens: int = 0,
) -> Footprint:
    """
    Choose the footprint: override, else measurement, else estimate.

    Args:
        estimate: what the engine computed.
        override_bytes: `memory` of `model.toml`.
        gpu_override_bytes: `gpu_memory` of `model.toml`, for what takes memory of cards.
        measured: what the ledger knows, if it has seen exactly this.
        context_tokens: the context one caller may fill.

    """
    on_cards = estimate
    if estimate.gpu_bytes and gpu_override_bytes is not None:
        on_cards = replace(estimate, gpu_bytes=gpu_override_bytes, source=FootprintSource.OVERRIDE)
    elif estimate.gpu_bytes and measured:
        on_cards = _on_cards(estimate, measured, context_tokens=context_tokens)
    if override_bytes is not None:
        return _resized(on_cards, override_bytes, FootprintSource.OVERRIDE)
    return _in_ram(on_cards, measured, context_tokens=context_tokens) if measured else on_cards


def _on_cards(estimate: Footprint, measured: Measured, *, context_tokens: int) -> Footprint:
    """Replace what it is expected to take of cards by what it was seen to take there, if that is worth it."""
    seen_bytes = measured.gpu_bytes + MARGIN_BYTES if measured.gpu_bytes else 0
    if seen_bytes < estimate.gpu_bytes and measured.longest_tokens < TRUSTED_SHARE * context_tokens:
        seen_bytes = 0
    needed_bytes = max(seen_bytes or estimate.gpu_bytes, int(measured.gpu_out_of_memory_bytes * AFTER_OUT_OF_MEMORY))
    if estimate.gpu_bytes * (1 - WORTHWHILE_SHARE) <= needed_bytes <= estimate.gpu_bytes:
        return estimate
    return replace(estimate, gpu_bytes=-(-needed_bytes // STEP_BYTES) * STEP_BYTES, source=FootprintSource.MEASURED)


def _in_ram(estimate: Footprint, measured: Measured, *, context_tokens: int) -> Footprint:
    """Replace what it is expected to take of the box's memory by what it was seen to take, if that is worth it."""
    seen_bytes = _seen_bytes(estimate, measured, context_tokens=context_tokens)
    total_bytes = max(seen_bytes or estimate.total_bytes, int(measured.out_of_memory_bytes * AFTER_OUT_OF_MEMORY))
    if seen_bytes == 0 and total_bytes == estimate.total_bytes:
        return estimate
    if estimate.total_bytes * (1 - WORTHWHILE_SHARE) <= total_bytes <= estimate.total_bytes:
        return replace(estimate, source=FootprintSource.MEASURED)
    rounded_bytes = -(-total_bytes // STEP_BYTES) * STEP_BYTES
    return _resized(estimate, rounded_bytes, FootprintSource.MEASURED)


def _seen_bytes(estimate: Footprint, measured: Measured, *, context_tokens: int) -> int:
    """Return what a run has shown to be needed; 0 if too little was asked of it to tell."""
    if measured.anon_bytes == 0:
        return 0
    needed_bytes = estimate.weights_bytes + measured.anon_bytes + MARGIN_BYTES
    if needed_bytes < estimate.total_bytes and measured.longest_tokens < TRUSTED_SHARE * context_tokens:
        return 0
    return needed_bytes


def _resized(estimate: Footprint, total_bytes: int, source: FootprintSource) -> Footprint:
    mapped_bytes = min(estimate.weights_bytes, total_bytes)
    private_bytes = total_bytes - mapped_bytes
    return replace(estimate, total_bytes=total_bytes, weights_bytes=mapped_bytes, private_bytes=private_bytes, source=source)
