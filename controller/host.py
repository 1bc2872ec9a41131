"""The box that workers are made on: what each engine must know of it, and the containers that follow for every model."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from controller import engines
from controller.cards import settle, whereabouts
from controller.charges import Capacity, Cards
from controller.device import NO_GPU, Device
from controller.engines.base import Site
from controller.spec import ModelName, ModelSpec, WorkerSpec
from controller.state import Worker
from controller.store.ledger import LedgerKey

WEIGHTS_VARIABLE: Final = "WINDLASS_WEIGHTS"
"""In a worker's environment: which weights it was made for. Nothing in the worker reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """
    What is known of the box.

    Attributes:
        sites: what each engine must know, by the engine's name.
        device: what the box is; measurements hold for its fingerprint.
        cards: what workers may take of each of its cards, as it is configured.

    """

    sites: Mapping[str, Site]
    device: Device = NO_GPU
    cards: Cards = ()

    def site(self, model: ModelSpec) -> Site:
        """Return the box as the engine of *model* must know it, with the options that are this model's own."""
        site = self.sites[model.engine]
        return replace(site, options={**site.options, **dict(model.options)})

    def worker(self, model: ModelSpec) -> WorkerSpec:
        """
        Describe the container that serves *model* here.

        It carries the digest of the weights, so that weights replaced in place make it another one: whoever has mapped the old
        file would go on serving it.
        """
        spec = engines.find(model.engine).worker(model, self.site(model))
        env = {**spec.env, WEIGHTS_VARIABLE: model.digest[:12]}
        charge = model.charge
        return replace(spec, env=env, weights=charge.weights, weights_bytes=charge.weights_bytes, cards=charge.cards)

    def kv_fingerprint(self, model: ModelSpec) -> str:
        """Return what a saved conversation of *model* holds for here: with other weights, engine or switches it means nothing."""
        site = self.site(model)
        parts = (model.engine, site.image, model.digest, model.context_tokens, model.lora, sorted(site.options.items()))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def ledger_key(self, model: ModelSpec) -> LedgerKey:
        """Return what a measurement of *model* holds for here."""
        site = self.site(model)
        return LedgerKey.of(model, image=site.image, device=self.device.fingerprint, options=site.options)


class WorkerSpecs(Mapping[ModelName, WorkerSpec]):
    """The containers of all registered models, each described when somebody looks: there may be ten thousand."""

    def __init__(self, models: Mapping[ModelName, ModelSpec], host: Host) -> None:
        """Describe nothing yet."""
        self._models = models
        self._host = host
        self._known: dict[ModelName, WorkerSpec] = {}
        self._capacity = Capacity(ram_bytes=0, cards=host.cards)
        self._places: dict[ModelName, Cards] = {}

    def __getitem__(self, model: ModelName) -> WorkerSpec:
        """Describe one."""
        found = self._known.get(model)
        if found is None:
            spec, cards = self._models[model], self._places.get(model)
            if cards is None:
                cards = settle(self._capacity, spec.footprint)
            found = self._known[model] = self._host.worker(replace(spec, cards=cards) if cards else spec)
        return found

    def follow(self, workers: Mapping[ModelName, Worker], places: Mapping[ModelName, Cards]) -> None:
        """Describe workers from now on as lying on the cards where they are, and who is to come as having its place."""
        for model in self._models.keys() & {*workers, *places} if self._capacity.cards else ():
            footprint, worker = self._models[model].footprint, workers.get(model)
            cards = whereabouts(self._capacity, footprint, worker=worker, place=places.get(model))
            if self._places.get(model) != cards:
                self._places[model] = cards
                self._known.pop(model, None)

    def __iter__(self) -> Iterator[ModelName]:
        """Go through the models."""
        return iter(self._models)

    def __len__(self) -> int:
        """Count the models."""
        return len(self._models)
