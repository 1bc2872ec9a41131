"""
Choose a model for a request, and say why.

Hard conditions come first: API path, context, tools, tags, request fields, whether it can ever fit, whether it can run at all.
Then the mode decides among what is left:

- `manual`: the model that was named, or a refusal.
- `auto`: models too weak for the difficulty step behind the others, and then the earliest expected end of the answer wins.
  Strength is size (parameters, or half the bytes of the weights where a header does not tell), compared with the largest
  eligible model: up to a difficulty of 0.35 any model will do, up to 0.7 one of a quarter of the largest, above that one of half.
  The expected end is wait + load + answer ÷ tokens a second, so a resident model that is a little weaker usually wins.
- `hybrid`: the caller's order (the preferred model, its fallbacks), of which the first is taken that starts soon enough: within
  `GRACE_S` plus `FACTOR` times what the quickest of them needs. Without fallbacks, all others stand in, in the order of `auto`.
  A name that nobody knows is passed over and mentioned.

Equal candidates are ordered by name, so that the answer depends on nothing but the values.
"""

import difflib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from controller.cards import could_hold
from controller.charges import Capacity
from controller.engines.base import untaken
from controller.errors import Reason, RefusedError
from controller.spec import ApiPath, ModelSpec
from controller.units import GIB, format_bytes, format_seconds
from controller.wire import Ask, Route

STRENGTH_STEPS: Final = ((0.35, 0.0), (0.7, 0.25), (1.0, 0.5))
"""Up to this difficulty, this share of the largest eligible model's size is enough."""

GRACE_S: Final = 10.0
FACTOR: Final = 2.0
"""A preferred model may start this much later than the quickest alternative: `GRACE_S + FACTOR x` the alternative's start."""

TYPICAL_ANSWER_TOKENS: Final = 256
"""What an answer is taken to be where the caller allows more; a limit of 4,096 is not a wish for 4,096."""

ASSUMED_BANDWIDTH_BYTES_S: Final = 8.0 * GIB
"""Decoding reads all weights once a token; with no model measured yet, this is how fast the memory is taken to be."""

NEAR_NAMES: Final = 3
MOST_REASONS: Final = 8
MOST_CONSIDERED: Final = 32
"""An answer carries its route, and a refusal its reasons; with thousands of models registered, the tail interests nobody."""

_BY_PERMANENCE: Final = (Reason.NOT_ELIGIBLE, Reason.NEVER_FITS, Reason.UNAVAILABLE)
"""What asking again can change the least comes first."""
_NEAR_ENOUGH: Final = 0.5
_MOST_NAMES_COMPARED: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """
    One registered model as the router sees it now.

    Attributes:
        spec: the model.
        resident: it is in memory and answers.
        wait_s: expected seconds until it can begin, apart from loading: 0 if it is idle.
        load_s: expected seconds of loading, its victims' end included; 0 when resident.
        tokens_per_s: measured speed of one answer when nothing slows the box down, if it was measured.
        pace: the share of that speed which the box reaches now.
        refused_fields: request fields its engine does not take.
        ignored_fields: those that it does not take either, and that are left out for it.
        taken_fields: all that it takes; `None` if it takes any.
        room: the most the budgets can ever give it (what is pinned elsewhere taken off); `None` if nobody counts.
        unavailable_reason: why it cannot run now (a crash loop, a folder that vanished); empty if it can.
        retry_after_s: when it can be tried again, if that is known.

    """

    spec: ModelSpec
    resident: bool = False
    wait_s: float = 0.0
    load_s: float = 0.0
    tokens_per_s: float | None = None
    pace: float = 1.0
    refused_fields: frozenset[str] = frozenset()
    ignored_fields: frozenset[str] = frozenset()
    taken_fields: frozenset[str] | None = None
    room: Capacity | None = None
    unavailable_reason: str = ""
    retry_after_s: float | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.spec.name

    @property
    def available(self) -> bool:
        """Whether it can run now."""
        return not self.unavailable_reason

    @property
    def start_s(self) -> float:
        """Expected seconds until it begins to answer."""
        return self.wait_s + self.load_s

    @property
    def size(self) -> int:
        """Its strength, by the only figure every model has."""
        return self.spec.parameters or self.spec.weights_bytes // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One reason why a model cannot serve a request."""

    reason: Reason
    text: str
    retry_after_s: float | None = None
    details: Mapping[str, int | float | str] = field(default_factory=dict)


def choose(ask: Ask, candidates: Sequence[Candidate]) -> Route:
    """
    Choose the model that serves *ask*.

    Raises:
        RefusedError: nothing registered can serve it; the text names every model's reasons.

    """
    if ask.mode == "manual":
        return _manual(ask, candidates)
    named = {candidate.name: candidate for candidate in candidates}
    if ask.mode == "auto":
        return _auto(ask, named)
    return _hybrid(ask, named)


def faults(ask: Ask, candidate: Candidate) -> tuple[Fault, ...]:
    """List everything that keeps *candidate* from serving *ask*; empty if nothing does."""
    return (*_mismatches(ask, candidate), *_obstacles(candidate))


def unknown_model(name: str, names: Iterable[str]) -> RefusedError:
    """Return the refusal for a name that nobody registered, with the nearest ones that exist."""
    near = near_names(name, names)
    hint = f"did you mean {' or '.join(near)}?" if near else "GET /models lists what is registered"
    return RefusedError(Reason.UNKNOWN_MODEL, f"no model is named {name[:80]!r}; {hint}")


def near_names(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the registered names that look most like *name*, the nearest first."""
    lowered = name.lower()[:80]
    pool = sorted(set(names))
    if len(pool) > _MOST_NAMES_COMPARED:  # comparing costs about 10 us a name, and a typo rarely hits the first letter
        pool = [known for known in pool if known[:1] == lowered[:1]][:_MOST_NAMES_COMPARED]
    return tuple(difflib.get_close_matches(lowered, pool, n=NEAR_NAMES, cutoff=_NEAR_ENOUGH))


def expected_s(ask: Ask, candidate: Candidate, *, bandwidth_bytes_s: float) -> float:
    """Return the seconds until a typical answer has ended."""
    if ask.api_path == ApiPath.EMBEDDINGS:
        return candidate.start_s
    tokens = min(ask.max_tokens or TYPICAL_ANSWER_TOKENS, TYPICAL_ANSWER_TOKENS)
    rate = candidate.tokens_per_s or bandwidth_bytes_s / max(candidate.spec.weights_bytes, 1)
    return candidate.start_s + tokens / (rate * candidate.pace)


def needed_share(difficulty: float) -> float:
    """Return which share of the largest eligible model's size a request of this difficulty asks for."""
    return next((share for up_to, share in STRENGTH_STEPS if difficulty <= up_to), STRENGTH_STEPS[-1][1])


def _mismatches(ask: Ask, candidate: Candidate) -> Iterable[Fault]:
    spec = candidate.spec
    if ask.api_path not in spec.api_paths and ask.also not in spec.api_paths:
        served = ", ".join(sorted(spec.api_paths)) or "nothing"
        yield _mismatch(f"it does not serve {ask.api_path} (it serves {served})")
    if ask.prompt_tokens + ask.max_tokens > spec.context_tokens:
        yield _mismatch(
            f"its context is {spec.context_tokens} tokens, and about {ask.prompt_tokens} of prompt "
            f"plus {ask.max_tokens} of answer were asked for"
        )
    if ask.tools and not spec.tools:
        yield _mismatch("it cannot call tools")
    if missing := sorted(set(ask.tags) - spec.tags):
        yield _mismatch(f"it is not tagged {', '.join(missing)}")
    if refused := sorted(untaken(candidate, ask.request_fields)):
        yield _mismatch(f"its engine {spec.engine} does not take {', '.join(refused)}")


def _mismatch(text: str) -> Fault:
    return Fault(reason=Reason.NOT_ELIGIBLE, text=text)


def _obstacles(candidate: Candidate) -> Iterable[Fault]:
    footprint = candidate.spec.footprint
    room = candidate.room
    if room is not None and footprint.total_bytes > room.ram_bytes:
        yield Fault(
            reason=Reason.NEVER_FITS,
            text=f"it needs {format_bytes(footprint.total_bytes)} ({footprint.source}) and can be given at most "
            f"{format_bytes(max(room.ram_bytes, 0))}; raise the budget, unpin another model, "
            "or set memory in its model.toml",
            details={
                "footprint_bytes": footprint.total_bytes,
                "footprint_source": footprint.source.value,
                "room_bytes": max(room.ram_bytes, 0),
            },
        )
    elif room is not None and not could_hold(room, footprint):
        most_bytes = max((size_bytes for _, size_bytes in room.cards), default=0)
        yield Fault(
            reason=Reason.NEVER_FITS,
            text=f"it needs {format_bytes(footprint.gpu_bytes)} of a GPU's memory ({footprint.source}) and can be given at most "
            f"{format_bytes(max(most_bytes, 0))} of one; raise the budget, unpin another model, "
            "or set gpu_memory in its model.toml",
            details={
                "footprint_bytes": footprint.total_bytes,
                "footprint_source": footprint.source.value,
                "gpu_bytes": footprint.gpu_bytes,
                "gpu_room_bytes": max(most_bytes, 0),
            },
        )
    if candidate.unavailable_reason:
        yield Fault(reason=Reason.UNAVAILABLE, text=candidate.unavailable_reason, retry_after_s=candidate.retry_after_s)


def _manual(ask: Ask, candidates: Sequence[Candidate]) -> Route:
    wanted = _wanted(ask)
    candidate = next((one for one in candidates if one.name == wanted), None)
    if candidate is None:
        raise unknown_model(wanted, (one.name for one in candidates))
    _sift(ask, [candidate])
    return _route(ask, candidate, [f"the request names {wanted}"], ranked=[candidate], bandwidth_bytes_s=_bandwidth([candidate]))


def _auto(ask: Ask, named: Mapping[str, Candidate]) -> Route:
    eligible, rejected = _sift(ask, named.values())
    bandwidth = _bandwidth(eligible)
    ranked = _ranked(ask, eligible, bandwidth)
    reasons = [*_auto_reasons(ask, ranked, bandwidth), *_left_out(rejected)]
    return _route(ask, ranked[0], reasons, ranked=ranked, bandwidth_bytes_s=bandwidth)


def _hybrid(ask: Ask, named: Mapping[str, Candidate]) -> Route:
    wanted = _wanted(ask)
    order = list(dict.fromkeys((wanted, *ask.fallback)))
    allowed = [named[name] for name in order if name in named] if ask.fallback else list(named.values())
    if not allowed:
        raise unknown_model(wanted, named)
    eligible, _ = _sift(ask, allowed)
    bandwidth = _bandwidth(eligible)
    ranked = eligible if ask.fallback else sorted(_ranked(ask, eligible, bandwidth), key=lambda one: one.name != wanted)
    limit_s = GRACE_S + FACTOR * min(one.start_s for one in ranked)
    chosen = next(one for one in ranked if one.start_s <= limit_s)
    passed = _passed_over(ask, order, named, chosen=chosen, limit_s=limit_s)
    place = "the preferred model" if chosen.name == wanted else "the first stand-in that can start soon enough"
    reasons = [f"{chosen.name} is {place}", *passed]
    return _route(ask, chosen, reasons, ranked=ranked, bandwidth_bytes_s=bandwidth)


def _wanted(ask: Ask) -> str:
    if not ask.model:
        raise RefusedError(Reason.MALFORMED, f"wanted the name of a model, got none; mode {ask.mode} needs one")
    return ask.model


def _sift(ask: Ask, candidates: Iterable[Candidate]) -> tuple[list[Candidate], dict[str, tuple[Fault, ...]]]:
    """Return who can serve *ask*, and why each of the others cannot; raise if nobody can."""
    eligible = []
    rejected = {}
    for candidate in candidates:
        if why := faults(ask, candidate):
            rejected[candidate.name] = why
        else:
            eligible.append(candidate)
    if not eligible:
        raise _refusal(rejected)
    return eligible, rejected


def _refusal(rejected: Mapping[str, Sequence[Fault]]) -> RefusedError:
    if not rejected:
        return RefusedError(Reason.UNKNOWN_MODEL, "no model is registered; put a folder with weights into the models folder")
    if len(rejected) == 1:
        (name, why), *_ = rejected.items()
        details = {key: value for fault in why for key, value in fault.details.items()}
        text = f"{name} cannot serve this request: {_joined(why)}"
        return RefusedError(_lasting(why), text, retry_after_s=_retry_after_s(rejected), details=details)
    names = sorted(rejected)
    texts = [f"{name}: {_joined(rejected[name])}" for name in names[:MOST_REASONS]]
    more = [f"and {len(names) - MOST_REASONS} more"] if len(names) > MOST_REASONS else []
    reason = max((_lasting(why) for why in rejected.values()), key=_BY_PERMANENCE.index)
    text = f"none of {len(names)} models can serve this request. {'. '.join([*texts, *more])}"
    return RefusedError(reason, text, retry_after_s=_retry_after_s(rejected))


def _retry_after_s(rejected: Mapping[str, Sequence[Fault]]) -> float | None:
    """Return when the first of those can be asked again that only time keeps from serving."""
    passing = [why[0].retry_after_s for why in rejected.values() if len(why) == 1]
    return min((pause_s for pause_s in passing if pause_s is not None), default=None)


def _joined(why: Sequence[Fault]) -> str:
    return "; ".join(fault.text for fault in why)


def _lasting(why: Sequence[Fault]) -> Reason:
    return min((fault.reason for fault in why), key=_BY_PERMANENCE.index)


def _bandwidth(candidates: Sequence[Candidate]) -> float:
    measured = [one.tokens_per_s * one.spec.weights_bytes for one in candidates if one.tokens_per_s]
    return (statistics.median(measured) if measured else 0.0) or ASSUMED_BANDWIDTH_BYTES_S


def _ranked(ask: Ask, eligible: Sequence[Candidate], bandwidth_bytes_s: float) -> list[Candidate]:
    floor = needed_share(ask.difficulty) * max(one.size for one in eligible)

    def key(one: Candidate) -> tuple[bool, float, str]:
        return one.size < floor, expected_s(ask, one, bandwidth_bytes_s=bandwidth_bytes_s), one.name

    return sorted(eligible, key=key)


def _auto_reasons(ask: Ask, ranked: Sequence[Candidate], bandwidth_bytes_s: float) -> list[str]:
    chosen, *others = ranked
    share = needed_share(ask.difficulty)
    weighed = f" ({', '.join(ask.signals)})" if ask.signals else ""
    asks_for = f"a model of {share:.0%} of the largest one's size or more" if share else "any model"
    end_s = expected_s(ask, chosen, bandwidth_bytes_s=bandwidth_bytes_s)
    where = "is resident" if chosen.resident else "must be loaded"
    if not others:
        return [f"{chosen.name} is the only model that can serve this request; it {where}"]
    floor = share * max(one.size for one in ranked)
    rivals = sum(one.size >= floor for one in others)
    decisive = (
        f"{chosen.name} {where} and is expected to end first, in {format_seconds(end_s)}, of {rivals + 1} models strong enough"
        if rivals
        else f"{chosen.name} is the only eligible model strong enough; it {where}"
    )
    return [decisive, f"difficulty {ask.difficulty:.2f}{weighed} asks for {asks_for}"]


def _left_out(rejected: Mapping[str, Sequence[Fault]]) -> list[str]:
    names = sorted(rejected)
    texts = [f"not {name}: {rejected[name][0].text}" for name in names[:MOST_REASONS]]
    more = len(names) - MOST_REASONS
    return [*texts, f"and {more} more that cannot serve this request"] if more > 0 else texts


def _passed_over(
    ask: Ask, order: Sequence[str], named: Mapping[str, Candidate], *, chosen: Candidate, limit_s: float
) -> list[str]:
    texts = []
    for name in order:
        if name == chosen.name:
            break
        candidate = named.get(name)
        if candidate is None:
            texts.append(f"not {name[:80]!r}: no model has this name")
        elif why := faults(ask, candidate):
            texts.append(f"not {name}: {why[0].text}")
        else:
            texts.append(
                f"not {name}: it would start in {format_seconds(candidate.start_s)}, and {format_seconds(limit_s)} is "
                f"as long as it is waited for here"
            )
    return texts


def _route(
    ask: Ask, chosen: Candidate, reasons: Sequence[str], *, ranked: Sequence[Candidate], bandwidth_bytes_s: float
) -> Route:
    return Route(
        model=chosen.name,
        mode=ask.mode,
        reasons=tuple(reasons),
        resident=chosen.resident,
        difficulty=ask.difficulty,
        considered=tuple(
            (one.name, round(expected_s(ask, one, bandwidth_bytes_s=bandwidth_bytes_s), 3)) for one in ranked[:MOST_CONSIDERED]
        ),
    )
