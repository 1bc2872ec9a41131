"""What is taken of bundles and what is not, as values."""

import pytest

from controller.bundles.judging import SPARE_BYTES, Present, Verdict, Wish, check_asked, check_clashes, check_room, judge, once
from controller.bundles.manifest import Bundle, BundledFile, EngineItem, FilePart, Item, ModelItem
from controller.bundles.reporting import State
from controller.errors import BundleRefusedError

ORIN = "sm87_p3767-0003_l4t36.4.7_trt10.3.0"


def files(size: int = 10) -> tuple[BundledFile, ...]:
    """Describe one file."""
    return (BundledFile(name="weights.gguf", changed_ns=1, parts=(FilePart(size_bytes=size, sha256="0" * 64),)),)


def model(name: str, size: int = 10) -> ModelItem:
    """Describe a model."""
    return ModelItem(name=name, files=files(size))


def engine(of: str = "one", device: str = "any") -> EngineItem:
    """Describe an engine file."""
    return EngineItem(name="0" * 24, model=of, engine="llama-cpp", quantization="q8_0", device=device, files=files())


def nothing(at: str, item: Item) -> Present:
    """Say that nothing is there."""
    return Present.NOTHING


def states(bundle: Bundle, wish: Wish | None = None, present: Present = Present.NOTHING) -> list[State]:
    """Judge a bundle."""
    return [one.state for one in judge(bundle, wish or Wish(), lambda at, item: present)]


def test_engine_files_come_before_their_models() -> None:
    """A model that is registered finds its own there, and nothing is built in vain."""
    bundle = Bundle(models=(model("one"),), engine_files=(engine(),))

    assert ["engines/" + "0" * 24, "models/one"] == [one.at for one in judge(bundle, Wish(), nothing)]


@pytest.mark.parametrize(
    ("built_for", "box", "state"),
    [
        ("any", "cpu", State.COPIED),
        ("any", ORIN, State.COPIED),
        (ORIN, ORIN, State.COPIED),
        (ORIN, "", State.COPIED),
        (ORIN, "cpu", State.LEFT),
        ("cpu", ORIN, State.LEFT),
    ],
)
def test_what_was_compiled_for_a_device_is_for_that_device(built_for: str, box: str, state: State) -> None:
    """What was not compiled is for all; where nobody can say what the box is, its controller will."""
    bundle = Bundle(models=(model("one"),), engine_files=(engine(device=built_for),))
    verdict, _ = judge(bundle, Wish(device=box), nothing)

    assert state is verdict.state
    assert (f"built for {built_for}" in verdict.reason) is (state is State.LEFT)


def test_only_what_is_asked_for_is_taken() -> None:
    """Of models by name, their engine files with them; engine files not at all where nobody wants them."""
    bundle = Bundle(models=(model("one"), model("two")), engine_files=(engine("two"),))

    assert [State.LEFT, State.COPIED, State.LEFT] == states(bundle, Wish(only=frozenset({"one"})))
    assert [State.COPIED, State.LEFT, State.COPIED] == states(bundle, Wish(only=frozenset({"two"})))
    assert [State.LEFT, State.COPIED, State.COPIED] == states(bundle, Wish(engine_files=False))


@pytest.mark.parametrize(
    ("present", "replace", "states_of"),
    [
        (Present.NOTHING, False, [State.COPIED, State.COPIED]),
        (Present.NOTHING, True, [State.COPIED, State.COPIED]),
        (Present.SAME, False, [State.THERE, State.THERE]),
        (Present.SAME, True, [State.THERE, State.THERE]),
        (Present.OTHER, False, [State.THERE, State.FAILED]),
        (Present.OTHER, True, [State.THERE, State.REPLACED]),
    ],
)
def test_what_is_there_stays_unless_somebody_says_so(present: Present, replace: bool, states_of: list[State]) -> None:
    """A model of other content is in the way; an engine file has its name from what it was built from."""
    bundle = Bundle(models=(model("one"),), engine_files=(engine(),))

    assert states_of == states(bundle, Wish(replace=replace), present)


@pytest.mark.parametrize(
    ("wish", "model_state", "engine_state"),
    [
        (Wish(), State.FAILED, State.LEFT),
        (Wish(keep=True), State.LEFT, State.LEFT),
        (Wish(replace=True), State.REPLACED, State.COPIED),
    ],
)
def test_an_engine_file_comes_with_its_model_alone(wish: Wish, model_state: State, engine_state: State) -> None:
    """Of a model that stays as the box has it, nothing is taken; one that is the same, or is replaced, gets its own."""

    def present(at: str, item: Item) -> Present:
        return Present.OTHER if at == "models/one" else Present.NOTHING

    def same(at: str, item: Item) -> Present:
        return Present.SAME if at == "models/one" else Present.NOTHING

    bundle = Bundle(models=(model("one"), model("two")), engine_files=(engine(),))
    found = judge(bundle, wish, present)

    assert [engine_state, model_state, State.COPIED] == [one.state for one in found]
    assert ("built of another one" in found[0].reason) is (engine_state is State.LEFT)
    assert [State.COPIED, State.THERE, State.COPIED] == [one.state for one in judge(bundle, wish, same)]
    assert [State.COPIED, State.COPIED] == states(Bundle(models=(model("two"),), engine_files=(engine("called so before"),)))


def verdict(name: str, size: int = 10, state: State = State.COPIED) -> Verdict:
    """Say what is to become of a model."""
    return Verdict(at=f"models/{name}", item=model(name, size), state=state)


def test_of_two_bundles_the_first_gives() -> None:
    """The same is taken once, other content under one name is refused, and what is not taken claims no name."""
    wanted = [
        verdict("one"),
        verdict("one"),
        verdict("one", 11),
        verdict("two"),
        verdict("three", 5, State.LEFT),
        verdict("three"),
    ]

    assert [State.COPIED, State.THERE, State.FAILED, State.COPIED, State.LEFT, State.COPIED] == [
        one.state for one in once(wanted)
    ]


def test_everything_is_refused_for_one_clash() -> None:
    """With the names of all of them; without one nothing is said."""
    check_clashes([verdict("one"), verdict("two", state=State.THERE), verdict("three", state=State.LEFT)])
    with pytest.raises(BundleRefusedError, match=r"^models/one: .*; models/two: .*; --replace"):
        check_clashes([verdict("one", state=State.FAILED), verdict("three"), verdict("two", state=State.FAILED)])


def test_names_that_are_not_there_are_refused() -> None:
    """With those that are; an engine file's name is no model's."""
    there = [verdict("one"), Verdict(at="engines/" + "0" * 24, item=engine(), state=State.COPIED)]
    check_asked(there, Wish())
    check_asked(there, Wish(only=frozenset({"one"})))
    with pytest.raises(BundleRefusedError, match="wanted two, and there are only: one"):
        check_asked(there, Wish(only=frozenset({"one", "two"})))
    with pytest.raises(BundleRefusedError, match="wanted 0"):
        check_asked(there, Wish(only=frozenset({"0" * 24})))


def test_room_is_counted_to_the_byte() -> None:
    """A little stays free; what is there in full needs none, however full the disk is."""
    check_room(missing_bytes=100, free_bytes=100 + SPARE_BYTES, where="here")
    check_room(missing_bytes=0, free_bytes=0, where="here")
    with pytest.raises(BundleRefusedError, match=r"^here: wanted"):
        check_room(missing_bytes=100, free_bytes=99 + SPARE_BYTES, where="here")
