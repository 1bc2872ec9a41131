"""Conversations through the whole stack: they survive swaps, crashes and damage, and nobody meets another's."""

import random
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.stack import Stack, output, wait_until
from controller.slots import IDLE_S
from tests.system.conftest import Place
from tests.system.talk import AS_ROOT, PATIENCE_S
from tests.system.test_keys import MakeKey, make_key

__all__ = ["make_key"]

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

TALKER = "talker"
TOKENS = 600
FEW = 12
"""What a chat template and a new question account for."""


@pytest.fixture
def talker(place: Place) -> str:
    """Register a model that talks to one caller at a time."""
    return place(TALKER)


@pytest.fixture
def ask(world: Stack, talker: str) -> Iterator[Any]:
    """Return a function that continues a prompt of the test's own; it returns what the engine has reused, and the text."""
    chance = random.Random()  # noqa: S311 -- no other test has ever computed it
    prompt = [chance.randrange(100, 4000) for _ in range(TOKENS + 2 * FEW)]
    with httpx.Client(base_url=world.url, timeout=PATIENCE_S) as http:

        def go_on(tokens: int, *, key: str = "", name: str = "mine", model: str = talker, **fields: Any) -> tuple[int, str]:  # noqa: ANN401
            body = {"model": model, "prompt": prompt[:tokens], "max_tokens": 6, "temperature": 0, "conversation_id": name}
            headers = {"authorization": f"Bearer {key}"} if key else {}
            answer = http.post("/v1/completions", json={**body, **fields}, headers=headers)
            assert answer.status_code == 200, answer.text
            said = answer.json()
            return int(said["timings"]["cache_n"]), str(said["choices"][0]["text"])

        yield go_on


def swap(world: Stack, model: str = TALKER) -> None:
    """Have a model leave and come back."""
    world.api.post("/unload_model", {"model": model})
    world.api.post("/load_model", {"model": model, "wait": True})


def figures(world: Stack) -> dict[str, Any]:
    """Return what the controller tells of conversations."""
    told: dict[str, Any] = world.api.get("/status")["conversations"]
    return told


def kept(world: Stack) -> list[Path]:
    """Return the files of all conversations on the disk."""
    folder = Path(world.place.home) / "kv" / ".kept"
    return [folder / name for name in output([*AS_ROOT, "ls", str(folder)]).split()]


def test_a_conversation_survives_a_swap(world: Stack, ask: Any) -> None:  # noqa: ANN401
    """All of it is reused, the answer is the one that would have been given without the swap, and the files are nobody's else."""
    ask(TOKENS, name="without")
    _, without = ask(TOKENS + FEW, name="without")
    ask(TOKENS)
    before = figures(world)
    swap(world)
    files = kept(world)
    reused, text = ask(TOKENS + FEW)
    after = figures(world)

    assert TOKENS == reused
    assert without == text
    assert (1, 0) == (after["restores"] - before["restores"], after["unused"] + after["failures"])
    assert files
    for file in files:
        status = file.stat()
        assert (0o600, 64001) == (stat.S_IMODE(status.st_mode), status.st_uid)
    assert 0o700 == stat.S_IMODE(files[0].parent.stat().st_mode)


def test_another_model_takes_its_place_and_it_comes_back(world: Stack, ask: Any, place: Place) -> None:  # noqa: ANN401
    """As it happens in use: nobody loads or unloads anything by hand."""
    ask(TOKENS)
    place("stout", 'memory = "860MiB"\n')
    ask(64, model="stout", name="other")
    wait_until(lambda: TALKER not in world.resident(), "the talker has left", PATIENCE_S)

    assert TOKENS == ask(TOKENS + FEW)[0]


def test_a_chat_is_known_by_what_was_said(world: Stack, talker: str) -> None:
    """No name, streamed or in a batch: the messages say what it goes on from."""
    story = "Tell me about the sea, the ships, the harbour, the captain and the whale. " * 12
    messages = [{"role": "user", "content": f"{random.random()} {story}"}]  # noqa: S311
    first = world.api.post("/inference", {"model": talker, "messages": messages, "max_length": 8, "temperature": 0})
    swap(world)
    messages += [{"role": "assistant", "content": first["response"]}, {"role": "user", "content": "And then?"}]
    second = world.api.post("/inference", {"model": talker, "messages": messages, "max_length": 8, "temperature": 0})
    swap(world)
    messages += [{"role": "assistant", "content": second["response"]}, {"role": "user", "content": "And then?"}]
    batch = world.api.post("/batch_inference", {"requests": [{"model": talker, "messages": messages, "max_length": 8}]})
    third = batch["results"][0]

    for before, now in ((first, second), (second, third)):
        assert now["timings"]["engine"]["cache_n"] > before["usage"]["prompt_tokens"] - FEW > 100


def test_two_keys_never_share_a_conversation(world: Stack, ask: Any, make_key: MakeKey) -> None:  # noqa: ANN401
    """Not by the same name and the same words: neither in memory nor on the disk, nor with a caller that has none."""
    anna, bert = make_key(), make_key()
    assert 0 == ask(TOKENS, key=anna)[0]
    assert 0 == ask(TOKENS, key=bert)[0]
    assert 0 == ask(TOKENS)[0]
    swap(world)
    assert TOKENS - 1 == ask(TOKENS, key=anna)[0]
    assert TOKENS - 1 == ask(TOKENS, key=bert)[0]

    assert 0 == ask(TOKENS, name="another", key=make_key())[0]


def test_a_conversation_is_deleted_by_its_owner(world: Stack, ask: Any, make_key: MakeKey) -> None:  # noqa: ANN401
    """From the disk and from the slot; whoever has another key, or none, deletes nothing by its name."""
    anna, bert = make_key(), make_key()
    ask(TOKENS, key=anna)
    with httpx.Client(base_url=world.url, timeout=PATIENCE_S) as http:
        hers = {"authorization": f"Bearer {anna}"}

        def listed() -> list[Any]:
            return list(http.get("/conversations", headers=hers).json()["conversations"])

        wait_until(lambda: len(listed()) == 1, "it is saved at rest", PATIENCE_S)
        before = len(kept(world))
        for other in ({"authorization": f"Bearer {bert}"}, {}):
            assert {"deleted": 0, "erased": 0} == http.delete("/conversations/mine", headers=other).json()
        assert TOKENS - 1 == ask(TOKENS, key=anna)[0]

        assert {"deleted": 1, "erased": 1} == http.delete("/conversations/mine", headers=hers).json()
        assert [] == listed()
        assert before - 1 == len(kept(world))
        assert 0 == ask(TOKENS, key=anna)[0]


def test_a_conversation_survives_a_crash_of_its_worker_and_of_the_controller(world: Stack, ask: Any) -> None:  # noqa: ANN401
    """What was written at rest is there again, whoever died meanwhile."""
    ask(TOKENS)
    saves = figures(world)["saves"]
    wait_until(lambda: figures(world)["saves"] > saves or IDLE_S < 0, "it is saved at rest", PATIENCE_S)
    output(["docker", "kill", world.worker(TALKER)])
    assert TOKENS == ask(TOKENS + FEW)[0]

    world.kill_controller()
    assert TOKENS <= ask(TOKENS + 2 * FEW)[0] <= TOKENS + FEW


def test_a_damaged_file_costs_the_computing(world: Stack, ask: Any) -> None:  # noqa: ANN401
    """The request is served, what was damaged is gone, and the next swap finds a whole one."""
    before = set(kept(world))
    ask(TOKENS)
    world.api.post("/unload_model", {"model": TALKER})
    (file,) = set(kept(world)) - before
    size = file.stat().st_size
    subprocess.run(
        [*AS_ROOT, "dd", "if=/dev/urandom", f"of={file}", "bs=1", "count=64", f"seek={size // 2}", "conv=notrunc"],
        check=True,
        capture_output=True,
    )

    assert 0 == ask(TOKENS)[0]
    swap(world)
    assert TOKENS - 1 == ask(TOKENS)[0]
