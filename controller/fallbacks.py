"""
Models whose engine was left to us, and what becomes of them when that engine fails before it has answered once.

The failure is remembered, the folders are looked at again, and the choice falls on the next engine. Who waits for the model waits
on meanwhile, or is told to come again where the next engine has a file to build first. `windlass build` forgets the failures.
"""

from collections.abc import Callable
from typing import Final

import structlog

from controller.engines.choice import Failed
from controller.spec import ModelName, ModelSpec
from controller.store.catalog import Catalog
from controller.store.setbacks import Setbacks

log: Final = structlog.get_logger()


class Fallbacks:
    """Passes models on from engine to engine. Every method is called from the event loop."""

    def __init__(self, setbacks: Setbacks, *, changed: Callable[[], None]) -> None:
        """Know what is remembered; *changed* is called when the folders are to be looked at again."""
        self._setbacks = setbacks
        self._changed = changed
        self._passed_on: dict[ModelName, str] = {}

    def build_failed(self, spec: ModelSpec, reason: str) -> None:
        """Pass a model on whose engine file cannot be built here."""
        self._pass_on(spec, Failed.BUILD, reason)

    def load_failed(self, spec: ModelSpec, reason: str) -> None:
        """Pass a model on that its engine cannot load here."""
        self._pass_on(spec, Failed.LOAD, reason)

    def forget(self, model: ModelName) -> bool:
        """Give all engines another chance with a model; false if none needs one."""
        self._passed_on.pop(model, None)
        forgotten = self._setbacks.forget(model)
        if forgotten:
            log.info("engine.tried_again", model=model)
            self._changed()
        return forgotten

    def take(self, catalog: Catalog) -> None:
        """Take the catalog as it is now, and say aloud which models have another engine than they had."""
        wanted = {spec.name: spec for spec in (*catalog.models, *(order.spec for order in catalog.orders))}
        for spec in wanted.values():
            if spec.choice is None:
                continue
            self._passed_on.pop(spec.name, None)
            before = self._setbacks.chose(spec.name, spec.engine)
            if before and before != spec.engine:
                log.warning("engine.changed", model=spec.name, engine=spec.engine, before=before, reason=spec.choice.reason)
            elif not before:
                log.info("engine.chosen", model=spec.name, engine=spec.engine, reason=spec.choice.reason)

    def _pass_on(self, spec: ModelSpec, failed: Failed, reason: str) -> None:
        choice = spec.choice
        if choice is None or not choice.successor or self._passed_on.get(spec.name) == choice.key:
            return
        self._passed_on[spec.name] = choice.key
        log.warning(
            "engine.failed",
            model=spec.name,
            engine=spec.engine,
            successor=choice.successor,
            at=failed.value,
            reason=reason,
        )
        self._setbacks.note(spec.name, spec.engine, choice.key, failed=failed, reason=reason)
        self._changed()
