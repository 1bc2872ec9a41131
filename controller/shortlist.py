"""
The few of many registered models that a request could be given to. Pure.

The router weighs every candidate with all that is known of it, which costs tens of microseconds each. With thousands of models
registered, this first takes out whoever cannot serve the request anyway, and of the others that lie on disk it keeps those that
would end soonest by their catalog's figures. Whoever is in memory or waited for is always weighed.
"""

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from controller import engines
from controller.cards import could_hold
from controller.charges import Capacity
from controller.engines.base import untaken
from controller.router import ASSUMED_BANDWIDTH_BYTES_S, TYPICAL_ANSWER_TOKENS, needed_share
from controller.spec import ApiPath, ModelName, ModelSpec
from controller.wire import Ask

FEW: Final = 128
"""So many are weighed all together."""
MOST: Final = 64
"""And of more, so many, beside those in memory."""


class Shortlist:
    """The registered models, sorted by what they can be asked; made anew with the catalog."""

    def __init__(self, models: Mapping[ModelName, ModelSpec]) -> None:
        """Sort *models*."""
        self._models = models
        self._by_path: dict[str, list[ModelSpec]] = {}
        for spec in models.values():
            for path in spec.api_paths:
                self._by_path.setdefault(path.value, []).append(spec)
        self._sizes = {name: spec.parameters or spec.weights_bytes // 2 for name, spec in models.items()}

    def pick(self, ask: Ask, *, active: Iterable[ModelName], room: Capacity) -> Collection[ModelName]:
        """
        Return whom to weigh for *ask*: all where they are few.

        Args:
            ask: what the request needs.
            active: the models in memory, and those that somebody waits for.
            room: the most that the budgets can give one of the others.

        """
        if len(self._models) <= FEW:
            return self._models.keys()
        able = self._able(ask, room)
        if not able:  # the first by name give the reasons
            return {*heapq.nsmallest(MOST, self._models), *(m for m in active if m in self._models)}
        largest = max(able, key=lambda spec: self._sizes[spec.name])
        floor = needed_share(ask.difficulty) * self._sizes[largest.name]
        tokens = min(ask.max_tokens or TYPICAL_ANSWER_TOKENS, TYPICAL_ANSWER_TOKENS)
        if ask.api_path == ApiPath.EMBEDDINGS:
            tokens = 0
        per_byte_s = tokens / ASSUMED_BANDWIDTH_BYTES_S
        strong = ((spec.load_s + spec.weights_bytes * per_byte_s, spec.name) for spec in able if self._sizes[spec.name] >= floor)
        soonest = (name for _, name in heapq.nsmallest(MOST, strong))
        return dict.fromkeys((*(m for m in active if m in self._models), *soonest, largest.name))

    def _able(self, ask: Ask, room: Capacity) -> list[ModelSpec]:
        """Return who can serve *ask*, by what the catalog says."""
        tokens, tags, fields = ask.prompt_tokens + ask.max_tokens, frozenset(ask.tags), frozenset(ask.request_fields)
        refusing = {name for name, engine in engines.ENGINES.items() if untaken(engine, fields)} if fields else ()
        return [
            spec
            for spec in self._serving(ask)
            if spec.context_tokens >= tokens
            and could_hold(room, spec.footprint)
            and (not ask.tools or spec.tools)
            and tags <= spec.tags
            and spec.engine not in refusing
        ]

    def _serving(self, ask: Ask) -> Iterator[ModelSpec]:
        """Go through those that serve the path, or the one that will do."""
        yield from self._by_path.get(ask.api_path, ())
        for spec in self._by_path.get(ask.also or "", ()):
            if ask.api_path not in spec.api_paths:
                yield spec
