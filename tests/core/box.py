"""A small box driven by hand: what the tests of the scheduler share."""

from collections.abc import Mapping
from dataclasses import replace

from controller.errors import RefusedError
from controller.scheduler import Grant, Rules, Scheduler
from controller.spec import ModelName, ModelSpec
from controller.state import LeaseId, Status
from tests.core.world import CRASHED, World, model_spec, worker

A, B, C, D = (ModelName(n) for n in "abcd")


def box(*specs: ModelSpec, **knobs: float) -> World:
    """Make a world whose grace is over, with these models and a budget of 1 unless told otherwise."""
    rules = replace(Rules(budget_bytes=1, min_residency_s=0.0), **knobs)  # type: ignore[arg-type]
    world = World(rules, specs)
    world.now += rules.adoption_grace_s
    return world


def settle(world: World, turns: int = 4) -> None:
    """Let what is under way end well, and the core see it."""
    for _ in range(turns):
        world.turn()
        world.settle()
    world.turn()


def load(world: World, *models: ModelName) -> None:
    """Bring models into memory with nobody using them."""
    for model in models:
        world.must_ask(model, load_only=True)
        settle(world)
        assert world.engine[model].status is Status.READY


def hold(world: World, model: ModelName) -> LeaseId:
    """Bring a model into memory and hold a lease on it."""
    lease = world.must_ask(model)
    settle(world)
    assert lease in world.held
    return lease


def refused(world: World, model: str, **asked: bool | float) -> RefusedError:
    """Ask and be refused."""
    answer = world.ask(model, **asked)  # type: ignore[arg-type]
    assert isinstance(answer, RefusedError)
    return answer


def last(answers: list[Grant]) -> LeaseId:
    """Return who was granted last."""
    return answers[-1].lease


def crash(world: World, model: ModelName) -> None:
    """Let a model come and crash once."""
    world.now = max(world.now, world.scheduler.record(model).retry_at_s)
    for _ in range(3):
        world.turn()
    world.take_effect(model)
    world.end(model, CRASHED)
    world.turn()


def adopt(*names: str, knobs: Mapping[str, float] | None = None, **specs: ModelSpec) -> Scheduler:
    """Start a scheduler that finds these workers ready, with room for all of them and not one more."""
    rules = Rules(budget_bytes=len(names), **(knobs or {}))  # type: ignore[arg-type]
    known = {ModelName(n): model_spec(n) for n in (*names, "new")} | {ModelName(n): s for n, s in specs.items()}
    return Scheduler(rules, known, {ModelName(n): worker(n) for n in names}, 0.0)
