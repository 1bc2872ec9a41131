"""Which conversation a request is said to be, what the worker is told of its slot, and what is told of the answer."""

# ruff: noqa: ANN401 -- bodies of any type

from pathlib import Path
from typing import Any

import pytest

from controller.gateway import talks
from controller.wire import KeyCard, Talk
from tests.gateway.conftest import World, direct, running
from tests.gateway.fakes import CHAT, COMPLETIONS, EMBEDDINGS
from tests.waiting import until

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "What is a windlass?"}
ANSWER = {"role": "assistant", "content": "A winch."}
SECOND = {"role": "user", "content": "And a capstan?"}
LONG = "The captain looked at the sea. " * 20


async def talk_of(world: World, path: str, body: dict[str, Any], **options: Any) -> Talk:
    """Ask, and return which conversation the controller was told of."""
    answer = await world.ask(path, {"model": "mini", **body}, **options)
    assert 200 == answer.status_code, answer.text
    talk = world.controller.acquired[-1].ask.talk
    assert talk is not None
    return talk


@pytest.mark.parametrize("path", [CHAT, "/inference"])
async def test_a_chat_goes_on_from_what_was_asked_before(near: World, path: str) -> None:
    """Its second turn names the first as its origin; nobody says so, the messages do."""
    first = await talk_of(near, path, {"messages": [SYSTEM, FIRST]})
    second = await talk_of(near, path, {"messages": [SYSTEM, FIRST, ANSWER, SECOND]})
    third = await talk_of(near, path, {"messages": [SYSTEM, FIRST, ANSWER, SECOND, ANSWER, FIRST]})

    assert ("", False) == (first.origin, first.lasting)
    assert (first.name, True) == (second.origin, second.lasting)
    assert second.name == third.origin
    assert 3 == len({first.name, second.name, third.name})


async def test_a_chat_that_called_a_tool_goes_on_from_the_question(near: World) -> None:
    """What comes after the last answer is new, however many messages that are."""
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
    told = {"role": "tool", "content": "42", "tool_call_id": "1"}
    first = await talk_of(near, CHAT, {"messages": [FIRST]})
    second = await talk_of(near, CHAT, {"messages": [FIRST, called, told]})
    otherwise = await talk_of(near, CHAT, {"messages": [FIRST, {**called, "tool_calls": []}, told, ANSWER, SECOND]})

    assert first.name == second.origin
    assert otherwise.origin not in (first.name, second.name)


@pytest.mark.parametrize(
    "messages",
    [
        [FIRST],
        [SYSTEM, SECOND],
        [{**SYSTEM, "content": "Be brief.2"}, FIRST],
        [SYSTEM, {**FIRST, "role": "system"}],
        [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "What is a windlass?"}]}],
        [{"role": "system", "content": "Be brief.What is a windlass?"}],
    ],
)
async def test_another_beginning_is_another_chat(near: World, messages: list[dict[str, Any]]) -> None:
    """Whatever differs in it: text, role, form, or where one message ends."""
    first = await talk_of(near, CHAT, {"messages": [SYSTEM, FIRST]})

    assert first.name != (await talk_of(near, CHAT, {"messages": messages})).name


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, {"messages": [FIRST]}), (COMPLETIONS, {"prompt": "x"}), ("/inference", {"prompt": "x"})],
)
async def test_a_conversation_may_be_named(near: World, path: str, body: dict[str, Any]) -> None:
    """By a field or a header; whatever it says, it is that one, and the worker hears nothing of the name."""
    named = await talk_of(near, path, {**body, "conversation_id": "mine"})
    by_header = await talk_of(near, path, body, headers={"x-windlass-conversation": "mine"})
    other = await talk_of(near, path, {**body, "conversation_id": "yours"})

    assert named == by_header
    assert (named.name, True) == (named.origin, named.lasting)
    assert named.name != other.name
    assert "mine" not in repr(named)
    assert all("conversation_id" not in sent for _, sent in near.workers["mini"].requests)


@pytest.mark.parametrize("name", ["", "x" * 257, 5])
async def test_a_name_that_is_none_is_refused(near: World, name: object) -> None:
    """Too short, too long, or no text."""
    answer = await near.chat(conversation_id=name)

    assert (400, "conversation_id") == (answer.status_code, answer.json()["error"]["param"])


@pytest.mark.parametrize("name", ["", "x" * 257])
async def test_a_name_in_a_header_is_checked_as_well(near: World, name: str) -> None:
    """It would be another one if it were cut."""
    answer = await near.ask(CHAT, {"model": "mini", "messages": [FIRST]}, headers={"x-windlass-conversation": name})

    assert (400, "x-windlass-conversation") == (answer.status_code, answer.json()["error"]["param"])


async def test_a_text_is_known_by_its_beginning(near: World) -> None:
    """By its first characters, whatever follows; one that is shorter has no name, and neither have several at once."""
    first = await talk_of(near, COMPLETIONS, {"prompt": LONG})
    longer = await talk_of(near, COMPLETIONS, {"prompt": LONG + "More."})
    other = await talk_of(near, COMPLETIONS, {"prompt": "But " + LONG})
    tokens = await talk_of(near, COMPLETIONS, {"prompt": list(range(100))})

    assert first == longer
    assert (first.name, False) == (first.origin, first.lasting)
    assert 4 == len({first.name, other.name, tokens.name, ""})
    for prompt in (LONG[:255], [LONG, LONG], list(range(63)), [list(range(100))] * 2):
        assert "" == (await talk_of(near, COMPLETIONS, {"prompt": prompt})).name


async def test_several_answers_scatter(near: World) -> None:
    """The engine computes them in several slots."""
    assert (await talk_of(near, CHAT, {"messages": [FIRST], "n": 2})).scatters
    assert not (await talk_of(near, CHAT, {"messages": [FIRST], "n": 1})).scatters


async def test_what_is_computed_otherwise_is_not_kept(near: World) -> None:
    """With a LoRA scale of its own, the same text means something else."""
    assert "" == (await talk_of(near, CHAT, {"messages": [FIRST], "lora": [{"id": 0, "scale": 1}], "conversation_id": "x"})).name


async def test_embeddings_are_no_conversation(near: World) -> None:
    """Nothing of them is kept."""
    await near.ask(EMBEDDINGS, {"model": "vectors", "input": "x"})

    assert near.controller.acquired[-1].ask.talk is None


async def test_a_batch_has_as_many_conversations_as_requests(near: World) -> None:
    """Each its own, of the one owner."""
    requests = [{"messages": [FIRST], "conversation_id": name} for name in "abc"]
    answer = await near.ask("/batch_inference", {"model": "mini", "requests": requests})

    assert 0 == answer.json()["failed"]
    assert 3 == len({acquired.ask.talk.name for acquired in near.controller.acquired if acquired.ask.talk})


async def test_the_controller_says_what_goes_to_the_worker(near: World) -> None:
    """The slot it has chosen, and whether what is in it may be reused, whatever the caller would like."""
    near.controller.slot, near.controller.fields = 1, {"id_slot": 1, "cache_prompt": False}
    await near.chat(id_slot=0, cache_prompt=True)
    _, sent = near.workers["mini"].requests[-1]

    assert (1, False) == (sent["id_slot"], sent["cache_prompt"])


@pytest.mark.parametrize("stream", [True, False])
async def test_the_controller_hears_what_was_reused(near: World, stream: bool) -> None:
    """As the engine has counted it; one that does not count says nothing."""
    await near.ask(COMPLETIONS, {"model": "mini", "prompt": LONG, "stream": stream})
    await until("the lease to be given back", lambda: near.controller.released)

    assert (2 if stream else None) == near.controller.released[-1].cached_tokens


async def test_a_caller_without_a_key_is_an_owner_of_its_own(tmp_path: Path) -> None:
    """With a key it is that key's id, which is not secret; the same words of two keys are two conversations to the controller."""
    async with direct(tmp_path) as world:
        digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
        world.controller.keys = (KeyCard(id="anna", digest=digest, scopes=("inference",)),)
        world.controller.announce()
        await until("the key to be known", lambda: bool(world.session.known().keys))
        with_key = await talk_of(world, CHAT, {"messages": [FIRST]}, headers={"authorization": "Bearer secret"})
        without = await talk_of(world, CHAT, {"messages": [FIRST]})

        assert ("anna", "") == (with_key.owner, without.owner)


async def test_a_lease_that_is_renewed_brings_its_slot(tmp_path: Path) -> None:
    """A controller that was restarted learns again what is in it."""
    async with running(tmp_path) as world:
        world.controller.slot = 3
        body = {"model": "mini", "messages": [FIRST], "stream": True, "fake": {"hang_after": 1}}
        async with world.http.stream("POST", CHAT, json=body):
            await until("the lease to be held", lambda: world.controller.held)
            talk = world.controller.acquired[-1].ask.talk
            await world.controller.stop()
            await world.controller.start()
            await until("it to be renewed", lambda: world.controller.renewed)

        assert (3, talk) == (world.controller.renewed[-1].slot, world.controller.renewed[-1].talk)


async def test_an_owner_lists_and_deletes_its_own(near: World) -> None:
    """By its own name for it, or by the id of the list; the controller hears whose it is from us, not from the caller."""
    near.controller.answers |= {"conversations.list": {"conversations": []}, "conversations.delete": {"deleted": 1, "erased": 0}}
    listed = await near.http.get("/conversations")
    deleted = await near.http.delete("/conversations/mine/really")
    arguments = [call.arguments for call in near.controller.calls if call.verb.startswith("conversations")]

    assert {"conversations": []} == listed.json()
    assert {"deleted": 1, "erased": 0} == deleted.json()
    assert [{"owner": ""}, {"owner": "", "name": talks.named("mine/really"), "id": "mine/really"}] == arguments


async def test_everybodys_are_deleted_by_an_administrator_alone(tmp_path: Path) -> None:
    """A key that may ask models may not."""
    async with direct(tmp_path) as world:
        digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
        world.controller.keys = (KeyCard(id="anna", digest=digest, scopes=("inference",)),)
        world.controller.answers["conversations.clear"] = {"deleted": 2, "erased": 1}
        world.controller.announce()
        await until("the key to be known", lambda: bool(world.session.known().keys))
        refused = await world.http.delete("/conversations", headers={"authorization": "Bearer secret"})
        done = await world.http.delete("/conversations")

        assert (403, 200) == (refused.status_code, done.status_code)
        assert {"deleted": 2, "erased": 1} == done.json()
