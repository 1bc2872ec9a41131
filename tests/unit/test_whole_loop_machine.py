"""The whole loop as a state machine: safety after every step, liveness at the end, under callers who never stop asking."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from controller.charges import Capacity, Cards, OnCard
from controller.errors import RefusedError
from controller.scheduler import Rules
from controller.spec import ModelSpec, Spread, Tier
from controller.state import Status
from tests.core.world import CRASHED, KILLED, OUT_OF_MEMORY, World, model_spec

pytestmark = pytest.mark.timeout(900)  # at the profiles with many examples

Name = TypeVar("Name", bound=str)

NAMES = ("a", "b", "c", "d")

models = st.sampled_from(NAMES)
specs = st.builds(
    model_spec,
    st.just("?"),
    size=st.integers(1, 8),
    parallel=st.integers(1, 3),
    load_s=st.sampled_from([0.5, 3.0, 20.0]),
    pinned=st.sampled_from([False, False, False, True]),
    tier=st.sampled_from(Tier),
    priority=st.integers(-1, 1),
    version=st.integers(0, 2),
    replicas=st.sampled_from([1, 1, 2, 3]),
    private=st.integers(0, 1),
    gpu=st.sampled_from([0, 0, 1, 2, 3, 5]),
    spread=st.sampled_from([Spread(), Spread(counts=(2,)), Spread(counts=(2,), even=True)]),
)
cards = st.sampled_from([(), (4,), (3, 3), (2, 4), (3, 3), (0, 3)])


def renamed(spec: ModelSpec, name: str) -> ModelSpec:
    """Give a drawn model its name."""
    return model_spec(
        name,
        size=spec.footprint.total_bytes,
        parallel=spec.parallel,
        load_s=spec.load_s,
        pinned=spec.pinned,
        tier=spec.tier,
        priority=spec.priority,
        version=int(spec.digest.rpartition("-")[2]),
        replicas=spec.replicas,
        private=spec.footprint.private_bytes,
        gpu=spec.footprint.gpu_bytes,
        spread=spec.footprint.spread,
    )


def lying(sizes: Iterable[int]) -> Cards:
    """Number cards of these sizes."""
    return tuple(OnCard(card, size) for card, size in enumerate(sizes))


class Appliance(RuleBasedStateMachine):
    """Callers, operators, crashes and restarts, in any order."""

    world: World

    @initialize(
        capacity=st.builds(lambda ram, sizes: Capacity(ram_bytes=ram, cards=lying(sizes)), st.integers(4, 8), cards),
        drawn=st.lists(specs, min_size=4, max_size=4),
        quantum_s=st.sampled_from([1.0, 10.0]),
        min_residency_s=st.sampled_from([0.0, 1.0]),
        max_failures=st.integers(1, 3),
    )
    def set_up(
        self, capacity: Capacity, drawn: list[ModelSpec], quantum_s: float, min_residency_s: float, max_failures: int
    ) -> None:
        """Make a box with four models."""
        rules = Rules(
            budget_bytes=capacity.ram_bytes,
            cards=capacity.cards,
            queue_limit=16,
            quantum_s=quantum_s,
            request_limit_s=30.0,
            min_residency_s=min_residency_s,
            max_failures=max_failures,
            idle_unload_s=60.0,
        )
        self.world = World(rules, [renamed(s, n) for s, n in zip(drawn, NAMES, strict=True)])

    # Callers.

    @rule(
        model=models,
        batch=st.booleans(),
        load_only=st.sampled_from([False, False, False, True]),
        deadline_s=st.sampled_from([None, None, None, 1.0, 100.0]),
        at_once=st.booleans(),
    )
    def ask(self, model: str, batch: bool, load_only: bool, deadline_s: float | None, at_once: bool) -> None:
        """Somebody asks, and is served at once if that can be."""
        lease = self.world.ask(model, batch=batch, load_only=load_only, deadline_s=deadline_s)
        if at_once and not isinstance(lease, RefusedError):
            self.world.serve(model)

    @precondition(lambda self: self.world.waiting or self.world.held)
    @rule(data=st.data(), served=st.booleans())
    def leave(self, data: st.DataObject, served: bool) -> None:
        """Somebody hangs up, or has been served."""
        self.world.leave(self._pick(data, [*self.world.waiting, *self.world.held]), served=served)

    @rule(
        wanted=st.lists(models, min_size=2, max_size=6),
        rounds=st.integers(2, 12),
        dt=st.sampled_from([0.2, 1.0, 7.0]),
        stops_lag=st.integers(1, 3),
    )
    def rush(self, wanted: list[str], rounds: int, dt: float, stops_lag: int) -> None:
        """A busy while: many ask, whoever is served asks again, and what is stopped takes its time."""
        world = self.world
        self._renew_the_rest()
        for number in range(rounds):
            world.ask(wanted[number % len(wanted)], batch=number % 5 == 4)
            for lease in sorted(world.held)[: number % 3]:
                world.leave(lease, served=True)
            world.now += dt
            world.turn()
            self._go_on(stops=number % stops_lag == 0)

    # Time and the controller.

    @rule(
        dt=st.sampled_from([0.0, 0.1, 1.0, 5.0, 40.0, 1000.0]),
        lose=st.integers(0, 2),
        blind=st.sampled_from([False, False, True]),
    )
    def turn(self, dt: float, lose: int, blind: bool) -> None:
        """Time passes, and the core decides."""
        if self.world.now + dt >= self.world.renew_until_s:
            self._renew_the_rest()
        self.world.now += dt
        self.world.turn(lose=lose, blind=blind)

    @rule()
    def restart(self) -> None:
        """The controller is killed and started again."""
        self.world.restart()

    @precondition(lambda self: self.world.orphans)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        """A gateway claims a lease from before."""
        self.world.renew(self._pick(data, self.world.orphans))

    # The engine.

    @precondition(lambda self: self.world.with_status(Status.STARTING))
    @rule(data=st.data(), how=st.sampled_from(["effect", "ready", "crash", "refused"]))
    def start_ends(self, data: st.DataObject, how: str) -> None:
        """A start goes on, well or badly."""
        model = self._pick(data, self.world.with_status(Status.STARTING))
        told = self.world.engine[model].told_to_start
        if how == "ready":
            self.world.become_ready(model)
        elif how == "refused" and told:
            self.world.fail_start(model)
        elif told:
            self.world.take_effect(model)
        elif how == "crash":
            self.world.end(model, CRASHED)

    @precondition(lambda self: self.world.with_status(Status.STOPPING))
    @rule(data=st.data())
    def stop_ends(self, data: st.DataObject) -> None:
        """Memory comes back."""
        self.world.end(self._pick(data, self.world.with_status(Status.STOPPING)), KILLED)

    @precondition(lambda self: self.world.with_status(Status.READY))
    @rule(data=st.data())
    def out_of_memory(self, data: st.DataObject) -> None:
        """The kernel kills a worker."""
        self.world.end(self._pick(data, self.world.with_status(Status.READY)), OUT_OF_MEMORY)

    @precondition(lambda self: self.world.with_status(Status.HELD))
    @rule(data=st.data())
    def held_ends(self, data: st.DataObject) -> None:
        """A container that waits to be let go is killed by somebody."""
        self.world.end(self._pick(data, self.world.with_status(Status.HELD)), KILLED)

    @precondition(lambda self: self.world.engine)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        """Somebody removes a container by hand."""
        self.world.vanish(self._pick(data, self.world.engine))

    @rule()
    def all_is_well(self) -> None:
        """What is under way ends well."""
        self.world.settle()

    # Operators.

    @rule(model=models, force=st.booleans())
    def unload(self, model: str, force: bool) -> None:
        """Somebody unloads a model."""
        self.world.unload(model, force=force)

    @rule(name=models, spec=st.none() | specs)
    def change_catalog(self, name: str, spec: ModelSpec | None) -> None:
        """A folder appears, changes or goes."""
        others = [s for s in self.world.specs.values() if s.name != name]
        self.world.register(others if spec is None else [*others, renamed(spec, name)])

    @rule(budget=st.integers(4, 12))
    def change_budget(self, budget: int) -> None:
        """The budget changes."""
        self.world.set_budget(budget)

    @rule(sizes=cards)
    def change_cards(self, sizes: tuple[int, ...]) -> None:
        """Other programs take memory of cards, or give it back; one may even vanish."""
        self.world.set_capacity(replace(self.world.rules.capacity, cards=lying(sizes)))

    @precondition(lambda self: self.world.scheduler.residents(self.world.now))
    @rule(number=st.integers(0, 99))
    def run_out_of_memory(self, number: int) -> None:
        """The box has none left, and a worker is ended."""
        residents = self.world.scheduler.residents(self.world.now)
        self.world.sacrifice(residents[number % len(residents)].model)

    # Liveness.

    def teardown(self) -> None:
        """With an engine that works again, everybody is answered, whoever else asks; and then everything comes to rest."""
        if hasattr(self, "world"):
            self._renew_the_rest()
            self._answer_everybody()
            self._come_to_rest()

    def _answer_everybody(self) -> None:
        """Whoever waits now is answered, though everybody who is served asks again at once, and for other models too."""
        world = self.world
        for model in world.models:
            world.ask(model)
        old = set(world.waiting)
        for number in range(400):
            if not old & set(world.waiting):
                return
            for lease, held in list(world.held.items()):
                world.ask(held.model)
                world.ask(NAMES[number % len(NAMES)])
                world.turn()
                if lease in world.held:
                    world.leave(lease, served=True)
                world.turn()
            self._go_on(stops=number % 3 == 0)
            world.now += 1.0
            world.turn()
        raise AssertionError("starved")

    def _come_to_rest(self) -> None:
        """When nobody asks any more, everybody is served, and what is observed is what is desired and fits."""
        world = self.world
        world.now += 40.0  # no pause after a failure is longer
        for _ in range(2 * len(world.waiting) + 20):
            for lease in sorted(world.held):
                world.leave(lease, served=True)
            self._go_on(stops=True)
            world.turn()
        assert not world.waiting, "somebody still waits though nobody holds anything"
        assert set(world.with_status(Status.READY)) == world.scheduler.desired
        assert world.held_bytes == world.scheduler.committed_bytes
        assert not world.is_overdrawn
        for card in range(2):
            assert world.held_on(card) == world.scheduler.committed.card_bytes(card)

    def _go_on(self, *, stops: bool) -> None:
        """Let loads end well, and stops too or not: memory often comes back later than the next model is ready."""
        for model in self.world.with_status(Status.STARTING):
            self.world.become_ready(model)
        for model in self.world.with_status(Status.STOPPING) if stops else ():
            self.world.end(model, KILLED)

    # The parts.

    def _pick(self, data: st.DataObject, among: Iterable[Name]) -> Name:
        return data.draw(st.sampled_from(sorted(among)))

    def _renew_the_rest(self) -> None:
        """No gateway takes longer than the grace it is given."""
        for lease in sorted(self.world.orphans):
            self.world.renew(lease)


TestAppliance = Appliance.TestCase
