"""
`engine = "auto"`: which engine runs a model here, and why it is that one.

The order of the engines follows from the box alone, so that the same folder gets the same engine on every box like it. What this
box has seen comes before that order: an engine that failed before it had ever answered stands back for the next one, and of two
that have both run the faster one is taken. An engine that has answered here is never left for a failure.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controller.device import Device, Family
from controller.errors import ModelError
from controller.spec import EngineChoice
from controller.units import GIB, format_bytes

AUTO: Final = "auto"
"""What `engine` in `model.toml` says for it."""
SMALL_BYTES: Final = 8 * GIB
"""A board with no more memory than this is a small one."""
FASTER: Final = 1.1
"""How many times as fast as the first in line another one must have been measured to take its place."""


class Failed(enum.StrEnum):
    """What an engine failed at."""

    BUILD = "build"
    """Its engine file could not be built."""
    LOAD = "load"
    """Its worker did not come to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """
    An engine that failed with a model before it had ever answered for it.

    Attributes:
        failed: what it failed at.
        reason: how.
        at_s: when, on the wall clock.

    """

    failed: Failed
    reason: str
    at_s: float

    @property
    def text(self) -> str:
        """What became of it, to be put behind the engine's name."""
        what = "could not be built" if self.failed is Failed.BUILD else "could not be loaded"
        return f"{what} here: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """
    Where the model is to run.

    Attributes:
        device: what the box is.
        memory_bytes: all of its memory.

    """

    device: Device
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """
    An engine that can run the model here, as far as anyone can tell before it has.

    Attributes:
        engine: its name.
        key: what a failure of it is remembered under.
        shortage: what it needs more of than there is; empty if the model fits.
        lacks: what is lost with this engine: something the manifest asks for, say; empty if nothing is.
        tokens_per_s: what was measured of exactly this model, with this context and as many callers at once; 0 if nothing was.
        proven: it has answered for exactly this here.
        setback: what it failed at before.

    """

    engine: str
    key: str
    shortage: str = ""
    lacks: str = ""
    tokens_per_s: float = 0.0
    proven: bool = False
    setback: Setback | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """
    Who runs it.

    Attributes:
        order: the names of all who could, the chosen one first.
        choice: what people are told of it.

    """

    order: tuple[str, ...]
    choice: EngineChoice


def standing(box: Box, *, embeds: bool) -> tuple[tuple[str, ...], str]:
    """Return the engines in the order in which they are to be taken on this box, and why the first is the first."""
    jetsons = ("tensorrt-edge-llm", "tensorrt-llm-jetson")
    if embeds:
        return ("transformers", "llama-cpp", "tensorrt-llm", *jetsons), "it reads every kind of embedding model"
    if not box.device.has_gpu:
        return ("llama-cpp", "transformers", "tensorrt-llm", *jetsons), "it is the leanest where no GPU can be used"
    if box.device.family is Family.DISCRETE:
        return ("tensorrt-llm", "llama-cpp", "transformers", *jetsons), "it is NVIDIA's own for its cards"
    if box.memory_bytes <= SMALL_BYTES:
        order = ("llama-cpp", *jetsons, "tensorrt-llm", "transformers")
        return order, f"it needs the least memory on a board of {format_bytes(SMALL_BYTES)} or less"
    return (*jetsons, "tensorrt-llm", "llama-cpp", "transformers"), "it is NVIDIA's own for this board"


def decide(candidates: Sequence[Candidate], *, refused: Mapping[str, str], box: Box, embeds: bool) -> Decision:
    """
    Choose an engine.

    Args:
        candidates: who can.
        refused: who cannot, and why.
        box: where it is to run.
        embeds: it is an embedding model.

    Raises:
        ModelError: nobody can; the text says why, engine by engine.

    """
    if not candidates:
        raise ModelError(f"no engine can run it here: {'; '.join(f'{name}: {why}' for name, why in refused.items())}")
    names, why_first = standing(box, embeds=embeds)
    ranked, measured = _fastest_first(sorted(candidates, key=lambda one: _place(one, names)))
    first, *behind = ranked
    others = [(one.engine, _why_behind(one, first)) for one in behind]
    ahead = [(name, refused[name]) for name in names[: names.index(first.engine)] if name in refused][:1]
    reason = measured or _reason(first, behind, names, ahead) or why_first
    successor = next((one.engine for one in behind if one.setback is None and not one.shortage), "")
    return Decision(
        order=tuple(one.engine for one in ranked),
        choice=EngineChoice(
            reason=reason,
            key=first.key,
            successor="" if first.proven else successor,
            others=(*others, *sorted(refused.items())),
            fell_back=any(one.setback for one in behind),
        ),
    )


def _place(one: Candidate, names: Sequence[str]) -> tuple[bool, float, bool, bool, int]:
    # When all have failed, the last of them stays: whoever goes back to the first begins a round without an end.
    failed, latest = one.setback is not None, -one.setback.at_s if one.setback else 0.0
    return failed, latest, bool(one.shortage), bool(one.lacks), names.index(one.engine)


def _fastest_first(ranked: Sequence[Candidate]) -> tuple[Sequence[Candidate], str]:
    """Put the fastest of the measured first, if the first is measured, too; and say so."""
    first = ranked[0]
    peers = [one for one in ranked if (one.setback is None, one.shortage, one.lacks) == (first.setback is None, "", "")]
    fastest = max(peers, key=lambda one: one.tokens_per_s, default=first)
    if not first.tokens_per_s or fastest.tokens_per_s < FASTER * first.tokens_per_s:
        return ranked, ""
    text = f"it was measured here at {fastest.tokens_per_s:.1f} tokens/s, {first.engine} at {first.tokens_per_s:.1f}"
    return [fastest, *(one for one in ranked if one is not fastest)], text


def _reason(first: Candidate, behind: Sequence[Candidate], names: Sequence[str], ahead: Sequence[tuple[str, str]]) -> str:
    """Say why it is not another one, whoever would come before it first; nothing if it is the first on this box anyway."""
    if first.setback is not None:
        return f"it {first.setback.text}, and so did every other engine that can run this model; it is tried again when asked for"
    passed = [one for one in behind if _place(one, names)[-1] < _place(first, names)[-1]]
    if passed:
        return "; ".join(f"{one.engine} {_passed_for(one)}" for one in passed)
    if not behind:
        return "no other engine here can run it"
    return "; ".join(f"{engine}, which comes first here, cannot: {why}" for engine, why in ahead)


def _passed_for(one: Candidate) -> str:
    if one.setback is not None:
        return one.setback.text
    return one.shortage or one.lacks


def _why_behind(one: Candidate, first: Candidate) -> str:
    if one.setback is not None:
        return f"{one.setback.text}; `windlass build` tries it again"
    if one.shortage or one.lacks:
        return one.shortage or one.lacks
    if one.tokens_per_s and first.tokens_per_s > one.tokens_per_s:
        return f"was measured here at {one.tokens_per_s:.1f} tokens/s, {first.engine} at {first.tokens_per_s:.1f}"
    return f"stands behind {first.engine} on this box"
