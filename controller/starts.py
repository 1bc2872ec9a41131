"""How workers begin: what is laid out for a start, what is read ahead, and the socket on which a worker says how far it is."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from controller import engines
from controller.engines.base import NOTIFY_NAME
from controller.probes.memory import Supply, read_supply
from controller.probes.notices import Listener, Notices
from controller.probes.page_cache import read_cached_bytes, weights_files
from controller.readahead import LoadMode, LoadPlan, may_read_early, plan_load
from controller.spec import ModelName, ModelSpec, WorkerSpec
from controller.store import workdirs

log: Final = structlog.get_logger()


class Starts:
    """Prepares starts, one a model at a time."""

    def __init__(self, read: Callable[[], Supply] = read_supply) -> None:
        """Know whom to ask for the memory there is."""
        self._read = read
        self._listeners: dict[ModelName, Listener] = {}
        self._plans: dict[ModelName, LoadPlan] = {}

    async def prepare(self, model: ModelSpec, spec: WorkerSpec, *, held: bool, mapped_bytes: int) -> LoadPlan:
        """
        Lay out a start and listen to what the worker will say.

        Args:
            model: whose weights.
            spec: its container.
            held: its engine is to wait for `let_go`, and nothing may be read that would push out what is needed meanwhile.
            mapped_bytes: the weights of all models in memory.

        Raises:
            StoreError: its directories cannot be made.

        """
        plan = self._plans[model.name] = await asyncio.to_thread(_plan, model)
        early = may_read_early(plan, available_bytes=self._read().available_bytes, mapped_bytes=mapped_bytes)
        reading = plan.mode is LoadMode.READ_AHEAD and (early or not held)
        await asyncio.to_thread(workdirs.prepare, spec, held=held, read_ahead=reading)
        await self._listen(spec)
        return plan

    async def let_go(self, model: ModelSpec, spec: WorkerSpec) -> LoadPlan:
        """
        Let a held engine begin; now there is room to read ahead as well, where that could not be done before.

        Raises:
            StoreError: its run directory cannot be written to.

        """
        if model.name not in self._plans:  # held by a controller that is no more
            self._plans[model.name] = await asyncio.to_thread(_plan, model)
        plan = self._plans[model.name]
        if model.name not in self._listeners:
            await self._listen(spec)
        workdirs.let_go(spec, read_ahead=plan.mode is LoadMode.READ_AHEAD)
        return plan

    async def notices(self, spec: WorkerSpec) -> Notices:
        """Return what a worker has said since it was started, and will say."""
        if spec.model not in self._listeners:
            await self._listen(spec)
        listener = self._listeners.get(spec.model)
        return listener.notices if listener else Notices()

    def forget(self, model: ModelName) -> None:
        """Stop listening to a worker that has said what it had to say, or has ended."""
        self._plans.pop(model, None)
        self._close(model)

    def close(self) -> None:
        """Stop listening to everybody."""
        for model in list(self._listeners):
            self._close(model)

    async def _listen(self, spec: WorkerSpec) -> None:
        self._close(spec.model)
        try:
            self._listeners[spec.model] = await Listener.open(Path(spec.socket).with_name(NOTIFY_NAME))
        except OSError as exc:  # then it is asked now and then
            log.warning("worker.not_heard", model=spec.model, error=str(exc))

    def _close(self, model: ModelName) -> None:
        if listener := self._listeners.pop(model, None):
            listener.close()


def _plan(model: ModelSpec) -> LoadPlan:
    files = [file for path in (model.weights, *model.lora) for file in weights_files(Path(model.weights_folder) / path)]
    weights_bytes, cached_bytes = read_cached_bytes(files)
    # Nothing of it counts as pages of a file where the engine copies the weights to a GPU past the page cache.
    reads_directly = engines.find(model.engine).reads_directly or not model.footprint.weights_bytes
    return plan_load(weights_bytes=weights_bytes, cached_bytes=cached_bytes, reads_directly=reads_directly)
