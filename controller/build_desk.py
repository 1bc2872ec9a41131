"""What operators may ask of builds: the verbs `build`, `builds` and `builds.cancel`, and what `models` says of them."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from controller import reports
from controller.engines.builds import Quantization
from controller.errors import ModelError, Reason, RefusedError
from controller.fallbacks import Fallbacks
from controller.forge.forge import Forge
from controller.forge.tickets import State
from controller.router import unknown_model
from controller.spec import ModelName
from controller.store.catalog import Scanner
from controller.store.manifest import Stored

Arguments = dict[str, Any]
_AUTO: Final = "auto"


class BuildDesk:
    """Answers the verbs about builds."""

    def __init__(self, *, forge: Forge, scanner: Scanner, models: Callable[[], Collection[str]], fallbacks: Fallbacks) -> None:
        """Know whom to ask; *models* returns the names of those that are registered."""
        self._forge = forge
        self._fallbacks = fallbacks
        self._scanner = scanner
        self._models = models

    @property
    def verbs(self) -> Mapping[str, Callable[[Arguments], Awaitable[Any]]]:
        """Return the table."""
        return {"build": self.build, "builds": self.builds, "builds.cancel": self.cancel}

    async def build(self, arguments: Arguments) -> dict[str, Any]:
        """Build what a model wants, or another quantisation of it, now; and forget what went wrong before."""
        name = self._name(arguments)
        quantization = _quantization(arguments)
        forgotten = self._fallbacks.forget(name)
        order = self._forge.order(name)
        if quantization is not None or forgotten:
            try:
                order = await asyncio.to_thread(self._scanner.order, name, quantization)
            except ModelError as exc:
                raise RefusedError(Reason.CONFLICT, str(exc)) from exc
        if order is None:
            text = f"{name} wants nothing built: its folder is served as it is; set `quantization` in its model.toml"
            raise RefusedError(Reason.CONFLICT, text)
        self._forge.build(order)
        return self._forge.describe(order)

    async def builds(self, _: Arguments) -> dict[str, Any]:
        """Describe every build: made, under way, waiting or failed."""
        return {"builds": self._forge.rows()}

    async def cancel(self, arguments: Arguments) -> dict[str, Any]:
        """Stop the builds of a model until somebody asks for them."""
        name = self._name(arguments)
        if not self._forge.cancel(name):
            raise RefusedError(Reason.CONFLICT, f"nothing is being built, or to be built, for {name}")
        return {"model": name, "state": State.CANCELLED.value}

    def described(self, rows: Sequence[dict[str, Any]], now: float) -> list[dict[str, Any]]:
        """Add to the rows of models what is built for them, and the models of which nothing can be served yet."""
        told = [{**row, "build": self._forge.row(ModelName(row["name"]))} for row in rows]
        for order in self._forge.unbuilt():
            build = self._forge.row(order.model)
            rests = build is not None and build["state"] in (State.FAILED, State.CANCELLED)
            row = reports.model_row(order.spec, worker=None, record=None, measured=None, now=now)
            reason = build["problem"] if build and rests else None
            told.append({**row, "state": "failed" if rests else "building", "reason": reason, "build": build})
        return told

    @property
    def complaints(self) -> list[str]:
        """Say which builds have failed for good."""
        return self._forge.complaints

    def _name(self, arguments: Arguments) -> ModelName:
        name = arguments.get("model")
        if not isinstance(name, str):
            raise RefusedError(Reason.MALFORMED, f"wanted the name of a model, got {name!r}")
        known = {*self._models(), *(order.model for order in self._forge.unbuilt())}
        if name not in known:
            raise unknown_model(name, known)
        return ModelName(name)


def _quantization(arguments: Arguments) -> Stored | None:
    wanted = arguments.get("quantization")
    if wanted is None:
        return None
    if wanted == _AUTO:
        return "auto"
    try:
        return Quantization(str(wanted).lower())
    except ValueError:
        known = ", ".join([*Quantization, _AUTO])
        raise RefusedError(Reason.MALFORMED, f"wanted quantization as one of {known}, got {str(wanted)[:40]!r}") from None
