"""What a worker is asked to be, and the hash that tells one from another."""

import re
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import PurePosixPath

import pytest

from controller.charges import OnCard
from controller.spec import ModelName, Mount, WorkerSpec, read_cards, write_cards

SPEC = WorkerSpec(
    model=ModelName("mini"),
    image="windlass/llama-cpp:local",
    argv=("--model", "/model/weights.gguf"),
    mounts=(Mount(source=PurePosixPath("/home/models/mini"), target=PurePosixPath("/model"), read_only=True),),
    memory_bytes=1000,
    socket=PurePosixPath("/run/workers/mini/worker.sock"),
)

CHANGED = {
    "model": ModelName("maxi"),
    "image": "windlass/llama-cpp:other",
    "argv": ("--model", "/model/other.gguf"),
    "mounts": (replace(SPEC.mounts[0], read_only=False),),
    "socket": PurePosixPath("/run/workers/mini/other.sock"),
    "env": {"THREADS": "2"},
    "devices": ("gpu",),
    "groups": (44,),
    "pids_limit": 255,
    "shm_bytes": 1 << 30,
}


def test_the_hash_is_twelve_hex_digits() -> None:
    """It fits into a label and is read by people."""
    assert re.fullmatch(r"[0-9a-f]{12}", SPEC.spec_hash)


def test_equal_specs_have_one_hash_whatever_the_order_of_their_environment() -> None:
    """The environment is a mapping; its order means nothing."""
    one, other = replace(SPEC, env={"A": "1", "B": "2"}), replace(SPEC, env={"B": "2", "A": "1"})

    assert one.spec_hash == other.spec_hash


BUDGETED = {"memory_bytes", "cards", "weights", "weights_bytes"}


@pytest.mark.parametrize("name", sorted({field.name for field in fields(WorkerSpec) if field.init} - BUDGETED))
def test_every_field_but_the_memory_changes_the_hash(name: str) -> None:
    """A difference that does not show would leave an old container in place."""
    assert replace(SPEC, **{name: CHANGED[name]}).spec_hash != SPEC.spec_hash  # type: ignore[arg-type]


def test_another_limit_alone_keeps_the_hash() -> None:
    """A measurement that moves the limit is no reason to end a worker that runs."""
    assert replace(SPEC, memory_bytes=1001).spec_hash == SPEC.spec_hash


def test_other_bytes_on_a_card_keep_the_hash() -> None:
    """Another card is another request for devices; another figure for what it takes there is like another limit."""
    assert replace(SPEC, cards=(OnCard(0, 1001),)).spec_hash == SPEC.spec_hash


@pytest.mark.parametrize("cards", [(), (OnCard(1, 8_000_000_000),), (OnCard(0, 5), OnCard(3, 0))])
def test_where_a_worker_lies_is_read_from_its_label_as_it_was_written(cards: tuple[OnCard, ...]) -> None:
    """The container is the only place where it is kept."""
    assert cards == read_cards(write_cards(cards))


@pytest.mark.parametrize("text", ["gpu0", "0", "0:1:2", "0:x", ":"])
def test_a_label_of_somebody_else_says_nothing(text: str) -> None:
    """What cannot be read is no reason to fail: such a container takes no card."""
    assert read_cards(text) == ()


def test_a_spec_cannot_be_changed() -> None:
    """Values are shared freely because nobody can write to them."""
    with pytest.raises(FrozenInstanceError):
        SPEC.image = "other"  # type: ignore[misc]
