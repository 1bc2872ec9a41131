"""Who was in memory and failed comes back by itself, where that costs nobody anything."""

from controller.rules import Rules
from controller.spec import ModelName
from tests.core.world import KILLED, World, model_spec

A = ModelName("a")
RULES = Rules(budget_bytes=10, max_failures=3, backoff_s=1.0, adoption_grace_s=0.0)


def resident(*names: str, size: int = 4) -> World:
    """Make a world with models in memory that nobody uses."""
    world = World(RULES, [model_spec(name, size=size) for name in ("a", "b", "c")])
    for name in names:
        lease = world.must_ask(name)
        for _ in range(4):
            world.turn()
            world.settle()
        world.leave(lease, served=True)
    world.turn()
    return world


def pass_time(world: World, seconds: float) -> None:
    """Let time pass, turn by turn, in which all that is under way ends well."""
    for _ in range(int(seconds)):
        world.now += 1.0
        world.turn()
        world.settle()


def test_an_idle_worker_that_is_killed_comes_back() -> None:
    """It is started again after its pause, though nobody asks for it."""
    world = resident("a")
    world.end(A, KILLED)
    world.turn()

    assert "a" not in world.scheduler.desired

    pass_time(world, 5.0)

    assert {"a"} == set(world.scheduler.desired)
    assert ["a", "a"] == world.starts


def test_it_comes_back_beside_others_only() -> None:
    """If its place was taken meanwhile, nobody leaves for it; it comes when there is room again."""
    world = resident("a", "b")
    world.end(A, KILLED)
    lease = world.must_ask("c")
    pass_time(world, 5.0)

    assert {"b", "c"} == set(world.scheduler.desired)

    world.leave(lease, served=True)
    pass_time(world, 5.0)

    assert {"b", "c"} == set(world.scheduler.desired)

    world.unload("b", force=False)
    pass_time(world, 5.0)

    assert {"a", "c"} == set(world.scheduler.desired)


def test_who_is_unloaded_by_hand_stays_away() -> None:
    """A person's word counts more than what was."""
    world = resident("a")
    world.end(A, KILLED)
    world.turn()
    world.unload("a", force=False)
    pass_time(world, 60.0)

    assert not world.scheduler.desired


def test_who_keeps_failing_rests() -> None:
    """Coming back ends with the last failure allowed."""
    world = resident("a")
    for _ in range(40):
        world.now += 1.0
        world.turn()
        if world.engine[A].told_to_start:
            world.take_effect(A)
        world.end(A)
    world.now += 1000.0
    world.turn()

    assert 3 == len(world.starts)
    assert not world.scheduler.desired


def test_who_leaves_the_catalog_is_forgotten() -> None:
    """A model that is gone from the disk is not wished for, not even when its name comes back."""
    world = resident("a")
    world.end(A, KILLED)
    world.turn()
    kept = list(world.specs.values())
    world.register([spec for spec in kept if spec.name != "a"])
    pass_time(world, 5.0)
    world.register(kept)
    pass_time(world, 5.0)

    assert not world.scheduler.desired
