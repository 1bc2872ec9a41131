"""The transformers worker where torch is not installed: folders, stop strings, text out of tokens, turns, bodies, routes."""

import asyncio
import base64
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

IMAGE = Path(__file__).parents[2] / "images" / "transformers"
sys.path.insert(0, str(IMAGE))

from tests.waiting import until  # noqa: E402
from worker import arguments, devices, folder, sse  # noqa: E402
from worker.app import Service, build  # noqa: E402
from worker.arguments import Api, Arguments  # noqa: E402
from worker.detokenizer import Detokenizer  # noqa: E402
from worker.devices import Device  # noqa: E402
from worker.errors import LoadError, RequestError  # noqa: E402
from worker.prompts import Prompts  # noqa: E402
from worker.runner import Runner  # noqa: E402
from worker.schemas import ChatRequest, CompletionRequest, EmbeddingsRequest  # noqa: E402
from worker.sequence import Finished, Job, Piece, Sampling, generate  # noqa: E402
from worker.served import Served  # noqa: E402
from worker.stops import StopFinder  # noqa: E402

EOS = 0


# --- folders


def checkpoint(path: Path, *, config: Mapping[str, object] | None = None, values: Sequence[float] = (1.0, 2.0)) -> Path:
    """Write the least that passes for a checkpoint."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config or {"architectures": ["LlamaForCausalLM"]}))
    write_safetensors(path / "model.safetensors", values)
    return path


def write_safetensors(file: Path, values: Sequence[float], **changes: object) -> None:
    """Write one tensor of 32-bit numbers, with whatever the header should say otherwise."""
    tensor = {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, 4 * len(values)]} | changes
    header = json.dumps({"__metadata__": {"format": "pt"}, "x": tensor}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + struct.pack(f"<{len(values)}f", *values))


def test_a_whole_checkpoint_passes(tmp_path: Path) -> None:
    """The configuration comes back."""
    assert {"architectures": ["LlamaForCausalLM"]} == folder.check(checkpoint(tmp_path / "m"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.PTH", "extra.pkl", "model.ckpt"])
def test_a_pickle_is_refused_even_beside_safetensors(tmp_path: Path, name: str) -> None:
    """Nothing that could be opened as a pickle is left lying beside what is opened."""
    (checkpoint(tmp_path / "m") / name).write_bytes(b"\x80\x04.")

    with pytest.raises(LoadError, match=name):
        folder.check(tmp_path / "m")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_folder_that_brings_code_is_refused(tmp_path: Path, name: str) -> None:
    """An auto_map asks for Python files to be run."""
    (checkpoint(tmp_path / "m") / name).write_text('{"auto_map": {"AutoModel": "modeling.Evil"}}')

    with pytest.raises(LoadError, match="auto_map"):
        folder.check(tmp_path / "m")


@pytest.mark.parametrize("content", ["[]", "nonsense", ""])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    """A broken file gives a sentence with its name."""
    (checkpoint(tmp_path / "m") / "config.json").write_text(content)

    with pytest.raises(LoadError, match=r"config\.json"):
        folder.check(tmp_path / "m")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The path is in the sentence."""
    with pytest.raises(LoadError, match="nowhere"):
        folder.check(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(tmp_path: Path, missing: str) -> None:
    """Both the configuration and the weights are needed."""
    (checkpoint(tmp_path / "m") / missing).unlink()

    with pytest.raises(LoadError, match=r"config\.json|safetensors"):
        folder.check(tmp_path / "m")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """A copy that was broken off is found by its header."""
    file = checkpoint(tmp_path / "m") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(LoadError, match="copy it again"):
        folder.check(tmp_path / "m")


@pytest.mark.parametrize(
    "changes",
    [
        {"data_offsets": [0, 4]},
        {"data_offsets": [8, 0]},
        {"shape": [2, 1_000_000_000]},
        {"data_offsets": None},
        {"data_offsets": [-8, 0]},
        {"shape": "xy"},
        {"dtype": None},
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    """Shape, kind and place of a tensor have to agree, and end where the file ends."""
    write_safetensors(checkpoint(tmp_path / "m") / "model.safetensors", (1.0, 2.0), **changes)

    with pytest.raises(LoadError, match=r"model\.safetensors"):
        folder.check(tmp_path / "m")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x04\0\0\0\0\0\0\0nope", b"\x02\0\0\0\0\0\0\0[]"])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever the bytes are, the answer is a sentence."""
    (checkpoint(tmp_path / "m") / "model.safetensors").write_bytes(content)

    with pytest.raises(LoadError, match=r"model\.safetensors"):
        folder.check(tmp_path / "m")


@pytest.mark.parametrize("named", ["missing.safetensors", "../m/model.safetensors"])
def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path, named: str) -> None:
    """Shards lie in the folder itself, and all of them."""
    index = checkpoint(tmp_path / "m") / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "model.safetensors", "y": named}}))

    with pytest.raises(LoadError, match="not in the folder"):
        folder.check(tmp_path / "m")


def test_the_context_never_exceeds_the_models_positions() -> None:
    """Asking for more than a model knows positions for would fail in the middle of an answer."""
    assert 512 == folder.context_tokens({"max_position_embeddings": 512}, wanted=4096)
    assert 256 == folder.context_tokens({"text_config": {"max_position_embeddings": 512}}, wanted=256)
    assert 4096 == folder.context_tokens({}, wanted=4096)


# --- the command line


def test_the_command_line_is_read() -> None:
    """Exactly the options the controller gives."""
    line = "--socket /s --model /model --model-name m --context-tokens 8 --parallel 2 --threads 3 --api chat,embeddings"

    read = arguments.parse(line.split())

    assert (Path("/s"), Path("/model"), "m", 8, 2, 3) == (
        read.socket,
        read.model,
        read.model_name,
        read.context_tokens,
        read.parallel,
        read.threads,
    )
    assert frozenset({Api.CHAT, Api.EMBEDDINGS}) == read.apis


@pytest.mark.parametrize("wrong", ["--context-tokens 0", "--api chat,sing", "--threads many"])
def test_a_wrong_command_line_ends_the_process(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With status 2 and what was wanted."""
    with pytest.raises(SystemExit) as ended:
        arguments.parse(f"--socket /s --model /m --model-name m --context-tokens 8 {wrong}".split())

    assert 2 == ended.value.code
    assert "wanted" in capsys.readouterr().err


# --- stop strings


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_strings_do_not_depend_on_how_the_text_was_cut(text: str, stops: list[str], data: st.DataObject) -> None:
    """In any pieces, what is shown is the text up to the first stop string."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    finder = StopFinder(stops)

    shown = "".join(finder.push(piece) for piece in pieces) + finder.flush()

    # What was shown before a piece completed a stop string cannot be taken back; it never held one.
    ends = [at for at in range(len(text) + 1) if any(text[:at].endswith(stop) for stop in stops)]
    if not ends:
        assert text == shown
    else:
        assert finder.found
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
        assert any(text[len(shown) :].startswith(stop) for stop in stops)


def test_text_flows_while_it_cannot_become_a_stop_string() -> None:
    """Only an ending that may grow into a stop string is held back."""
    finder = StopFinder(["\n\nUser:"])

    assert "Hello " == finder.push("Hello ")
    assert "there." == finder.push("there.\n")
    assert "" == finder.push("\nU")
    assert "\n\nUnder" == finder.push("nder")


# --- text out of tokens


def decode_utf8(tokens: Sequence[int]) -> str:
    """Decode tokens that are bytes."""
    return bytes(tokens).decode("utf-8", errors="replace")


@given(st.text(max_size=20), st.text(max_size=5))
def test_text_in_pieces_adds_up_and_splits_no_character(text: str, prompt: str) -> None:
    """However many tokens a character takes, it is shown whole."""
    pieces = Detokenizer(decode_utf8, list(prompt.encode()))

    shown = [pieces.push(token) for token in text.encode()] + [pieces.flush()]

    assert text == "".join(shown)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in shown)


def test_bytes_that_never_become_a_character_are_shown_in_the_end() -> None:
    """Nothing is waited for without end, and nothing is lost."""
    pieces = Detokenizer(decode_utf8, [])

    shown = [pieces.push(0xFF) for _ in range(40)]

    assert any(shown)
    assert 40 == len("".join(shown) + pieces.flush())


# --- a model of letters: its tokens are code points, and it says what it was told to say


class Letters:
    """Continues any text with a script."""

    eos_tokens = frozenset({EOS})

    def __init__(self, script: str, *, endless: bool = False) -> None:
        self.script = [ord(letter) for letter in script]
        self.endless = endless
        self.fed: list[tuple[int, ...]] = []

    def begin(self) -> "Letters":
        """Start with nothing read."""
        return self

    def feed(self, tokens: Sequence[int]) -> int:
        """Note what is read; the script needs no scores."""
        self.fed.append(tuple(tokens))
        return 0

    def chooser(self, sampling: Sampling) -> Callable[[object], int]:
        """Say the script, whatever the scores."""
        script: Iterator[int] = iter(self.script)
        return lambda _: next(script, ord("z") if self.endless else EOS)

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn code points into text."""
        return "".join(map(chr, tokens))


GREEDY = Sampling(temperature=0, top_p=1, top_k=0, presence_penalty=0, frequency_penalty=0, seed=None)


def run(model: Letters, **wanted: Any) -> tuple[str, Finished]:  # noqa: ANN401 -- the fields of a job
    """Answer a job to its end."""
    job = Job(**{"prompt": (1, 2, 3), "max_tokens": 100, "stops": (), "sampling": GREEDY, "ignore_eos": False, **wanted})
    events: list[Piece | Finished] = []
    for _ in generate(model, job, events.append):
        pass
    *pieces, last = events
    assert isinstance(last, Finished)
    return "".join(piece.text for piece in pieces if isinstance(piece, Piece)), last


def test_an_answer_ends_at_the_end_token() -> None:
    """The token that ends it is counted and not shown."""
    text, finished = run(Letters("hello"))

    assert ("hello", "stop", 3, 6) == (text, finished.reason, finished.timings.prompt_n, finished.timings.predicted_n)


def test_an_answer_ends_at_its_limit() -> None:
    """With the reason `length`, and exactly as many tokens."""
    text, finished = run(Letters("hello"), max_tokens=3)

    assert ("hel", "length", 3) == (text, finished.reason, finished.timings.predicted_n)


def test_an_answer_ends_at_a_stop_string_over_token_borders() -> None:
    """The stop string is not shown, and no token is made after it."""
    text, finished = run(Letters("one. two"), stops=(". t",))

    assert ("one", "stop", 6) == (text, finished.reason, finished.timings.predicted_n)


def test_text_held_back_for_a_stop_string_is_shown_when_the_answer_ends() -> None:
    """The beginning of a stop string is ordinary text if the rest never comes."""
    assert "one." == run(Letters("one."), stops=(".\n",))[0]


def test_the_end_token_can_be_ignored() -> None:
    """For measurements that need an answer of a certain length."""
    text, finished = run(Letters("ab"), ignore_eos=True, max_tokens=4)

    assert ("ab\0\0", "length") == (text, finished.reason)


def test_a_long_prompt_is_read_in_chunks() -> None:
    """So that others get a turn while it is read."""
    model = Letters("x")

    run(model, prompt=tuple(range(1, 1101)))

    assert [512, 512, 76, 1] == [len(tokens) for tokens in model.fed]


# --- turns


def steps(count: int, seen: list[str], name: str) -> Generator[None, None, None]:
    """Take *count* steps and note each, and the end."""
    try:
        for _ in range(count):
            seen.append(name)
            yield
        seen.append(f"{name} done")
    finally:
        seen.append(f"{name} closed")


def test_answers_take_turns() -> None:
    """A step each, in the order they came; what is over makes room for who waits."""
    runner, seen = Runner(parallel=2), list[str]()
    for name, count in (("a", 1), ("b", 2), ("c", 1)):
        runner.submit(steps(count, seen, name), failed=pytest.fail)

    for _ in range(4):
        runner.turn()

    assert ["a", "b", "a done", "a closed", "b", "b done", "b closed", "c", "c done", "c closed"] == seen
    assert (0, 0) == runner.counts()


def test_a_cancelled_answer_ends_before_its_next_step() -> None:
    """No further token is computed for somebody who has gone."""
    runner, seen = Runner(parallel=1), list[str]()
    ticket = runner.submit(steps(1000, seen, "a"), failed=pytest.fail)
    runner.turn()

    ticket.cancel()
    runner.turn()

    assert ["a", "a closed"] == seen
    assert (0, 0) == runner.counts()


def test_an_answer_that_fails_leaves_the_others_alone() -> None:
    """Its owner hears of it; the thread serves on."""

    def broken() -> Generator[None, None, None]:
        yield
        raise RuntimeError("out of numbers")

    runner, seen, failures = Runner(parallel=2), list[str](), list[Exception]()
    runner.submit(broken(), failed=failures.append)
    runner.submit(steps(3, seen, "b"), failed=pytest.fail)

    for _ in range(4):
        runner.turn()

    assert ["out of numbers"] == [str(failure) for failure in failures]
    assert "b done" in seen


# --- bodies


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"logprobs": 0},
        {"top_logprobs": 3},
        {"logit_bias": {"5": 1.0}},
        {"response_format": {"type": "json_object"}},
        {"stream_options": {"include_usage": True}},
        {"echo": True},
        {"suffix": "end"},
        {"best_of": 2},
    ],
)
def test_fields_whose_meaning_would_be_lost_are_refused(fields: dict[str, object]) -> None:
    """By name, so that a client can tell which."""
    body = CompletionRequest.model_validate_json(json.dumps({"prompt": "x", **fields}))

    with pytest.raises(RequestError) as refused:
        body.refuse()

    assert next(iter(fields)) == refused.value.param


@pytest.mark.parametrize("fields", [{"tools": [{}]}, {"functions": [{}]}])
def test_tools_are_refused(fields: dict[str, object]) -> None:
    """Calls to tools are not found in the text of an answer."""
    body = ChatRequest.model_validate_json(json.dumps({"messages": [{"role": "user", "content": "x"}], **fields}))

    with pytest.raises(RequestError):
        body.refuse()


def test_harmless_values_pass() -> None:
    """What OpenAI's clients send by default, and what nobody knows yet."""
    fields = {"n": 1, "logprobs": None, "tools": [], "response_format": {"type": "text"}, "user": "me", "someday": [1]}

    body = ChatRequest.model_validate_json(json.dumps({"messages": [{"role": "user", "content": "x"}], **fields}))
    body.refuse()

    assert body.limit_tokens is None


@pytest.mark.parametrize(
    ("value", "expected"), [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])]
)
def test_prompts_and_inputs_come_in_four_shapes(value: object, expected: object) -> None:
    """A text, texts, tokens, lists of tokens."""
    assert expected == CompletionRequest.model_validate_json(json.dumps({"prompt": value})).prompts
    assert expected == EmbeddingsRequest.model_validate_json(json.dumps({"input": value})).inputs


def test_an_event_is_one_line() -> None:
    """Line breaks inside are escaped, other scripts are not."""
    assert 'data: {"a":"ü\\n\\nb"}\n\n'.encode() == sse.frame({"a": "ü\n\nb"})


# --- routes


class LettersTokenizer:
    """A tokenizer whose tokens are code points."""

    chat_template: str | None = "any"
    eos_token_id = EOS

    def __len__(self) -> int:
        return 0x110000

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        """Turn text into code points."""
        return {"input_ids": [ord(letter) for letter in text]}

    def apply_chat_template(self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool) -> str:
        """Write a conversation, and object as templates do."""
        if conversation[0]["role"] == "tool":
            raise ValueError("a tool cannot begin")
        return "".join(f"{turn['role'][0]}:{turn['content']};" for turn in conversation)

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """Turn code points into text."""
        return "".join(map(chr, token_ids))


class Lengths:
    """Embeds a text as its length."""

    def embed(self, inputs: Sequence[Sequence[int]], emit: Callable[[list[list[float]]], None]) -> Generator[None, None, None]:
        """Give the length, and a half."""
        yield
        emit([[float(len(tokens)), 0.5] for tokens in inputs])


def service(model: Letters | None = None, *, apis: frozenset[Api] = frozenset(Api), context_tokens: int = 64) -> Service:
    """Make a service with a model of letters, loaded and running."""
    given_arguments = Arguments(
        socket=Path("/s"), model=Path("/m"), model_name="letters", context_tokens=context_tokens, parallel=2, threads=1, apis=apis
    )
    made = Service(arguments=given_arguments, runner=Runner(parallel=2))
    made.served = Served(
        prompts=Prompts(LettersTokenizer()),
        causal=partial(generate, model or Letters("hi there")),
        embedder=Lengths(),
        context_tokens=context_tokens,
        defaults={},
        device="cpu",
    )
    made.runner.start()
    return made


def client_of(made: Service) -> httpx.AsyncClient:
    """Call the routes without a socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(build(made)), base_url="http://worker")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Call a ready worker."""
    async with client_of(service()) as here:
        yield here


CHAT = {"messages": [{"role": "user", "content": "hey"}]}


async def test_a_chat_answer_has_everything_a_client_reads(client: httpx.AsyncClient) -> None:
    """Role, text, reason, exact usage, and timings."""
    reply = (await client.post("/v1/chat/completions", json=CHAT)).json()

    assert {"role": "assistant", "content": "hi there", "refusal": None} == reply["choices"][0]["message"]
    assert "stop" == reply["choices"][0]["finish_reason"]
    assert {"prompt_tokens": 6, "completion_tokens": 9, "total_tokens": 15} == reply["usage"]
    assert (6, 9, 0) == tuple(reply["timings"][key] for key in ("prompt_n", "predicted_n", "cache_n"))


async def test_several_prompts_are_answered_in_order(client: httpx.AsyncClient) -> None:
    """One choice each, usage over all."""
    reply = (await client.post("/v1/completions", json={"prompt": ["a", "bc", "def"], "max_tokens": 2})).json()

    assert [(0, "hi", "length"), (1, "hi", "length"), (2, "hi", "length")] == [
        (choice["index"], choice["text"], choice["finish_reason"]) for choice in reply["choices"]
    ]
    assert {"prompt_tokens": 6, "completion_tokens": 6, "total_tokens": 12} == reply["usage"]


async def test_a_completion_without_a_limit_is_as_short_as_openais() -> None:
    """Sixteen tokens; a chat answer may fill the context instead."""
    async with client_of(service(Letters("", endless=True))) as client:
        completion = (await client.post("/v1/completions", json={"prompt": "a"})).json()
        chat = (await client.post("/v1/chat/completions", json=CHAT)).json()

    assert 16 == completion["usage"]["completion_tokens"]
    assert 64 == chat["usage"]["total_tokens"]


def events_of(text: str) -> list[Any]:
    """Read a stream's events."""
    frames = text.removesuffix("\n\n").split("\n\n")
    assert all(frame.startswith("data: ") for frame in frames)
    assert "data: [DONE]" == frames.pop()
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


async def test_a_chat_stream_begins_with_the_role_and_ends_with_usage(client: httpx.AsyncClient) -> None:
    """Then text, then the reason, then usage without choices, then the end mark."""
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}

    reply = await client.post("/v1/chat/completions", json=body)

    first, *middle, last, summary = events_of(reply.text)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert {"role": "assistant", "content": ""} == first["choices"][0]["delta"]
    assert "hi there" == "".join(event["choices"][0]["delta"]["content"] for event in middle)
    assert ({}, "stop", None) == (last["choices"][0]["delta"], last["choices"][0]["finish_reason"], last["usage"])
    assert ([], 15) == (summary["choices"], summary["usage"]["total_tokens"])
    assert 9 == summary["timings"]["predicted_n"]


async def test_a_stream_without_usage_still_has_timings(client: httpx.AsyncClient) -> None:
    """In its last chunk, as with llama.cpp's server."""
    reply = await client.post("/v1/completions", json={"prompt": "a", "stream": True, "max_tokens": 3})

    events = events_of(reply.text)
    assert "hi " == "".join(event["choices"][0]["text"] for event in events)
    assert 3 == events[-1]["timings"]["predicted_n"]
    assert not any("usage" in event for event in events)


async def test_vectors_come_as_numbers_or_as_base64(client: httpx.AsyncClient) -> None:
    """OpenAI's client asks for base64 unless told otherwise."""
    numbers = (await client.post("/v1/embeddings", json={"input": ["abc", "de"]})).json()
    packed = (await client.post("/v1/embeddings", json={"input": "abc", "encoding_format": "base64"})).json()

    assert [[3.0, 0.5], [2.0, 0.5]] == [row["embedding"] for row in numbers["data"]]
    assert {"prompt_tokens": 5, "total_tokens": 5} == numbers["usage"]
    assert (3.0, 0.5) == struct.unpack("<2f", base64.b64decode(packed["data"][0]["embedding"]))


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("chat/completions", {"messages": []}, 400, None, "messages"),
        ("chat/completions", {"messages": [{"role": "king", "content": "x"}]}, 400, None, "messages"),
        ("chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, 400, None, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, None, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x" * 80}]}, 400, "context_length_exceeded", "messages"),
        ("completions", {"prompt": "x", "max_tokens": 64}, 400, "context_length_exceeded", "max_tokens"),
        ("completions", {"prompt": "x", "max_tokens": 10**30}, 400, "context_length_exceeded", "max_tokens"),
        ("completions", {"prompt": "x", "max_tokens": -1}, 400, None, "max_tokens"),
        ("completions", {"prompt": "x", "temperature": "hot"}, 400, None, "temperature"),
        ("completions", {"prompt": "x", "stop": [""]}, 400, None, "stop"),
        ("completions", {"prompt": ""}, 400, None, "prompt"),
        ("completions", {"prompt": [-1]}, 400, None, "prompt"),
        ("completions", {"prompt": [10**30]}, 400, None, "prompt"),
        ("completions", {}, 400, None, "prompt"),
        ("completions", {"prompt": "x", "model": "other"}, 404, "model_not_found", "model"),
        ("embeddings", {"input": "x" * 65}, 400, "context_length_exceeded", "input"),
        ("embeddings", {"input": ["x"] * 2049}, 400, None, "input"),
        ("embeddings", {"input": "x", "dimensions": 3}, 400, "unsupported_parameter", "dimensions"),
        ("nothing", {}, 404, None, None),
    ],
)
async def test_a_refusal_is_written_as_openai_writes_it(  # noqa: PLR0917 -- a row of the table
    client: httpx.AsyncClient, path: str, body: object, status: int, code: str | None, param: str | None
) -> None:
    """The envelope has a message, a type, and where they are known a code and the field."""
    reply = await client.post(f"/v1/{path}", json=body)

    assert status == reply.status_code
    error = reply.json()["error"]
    assert ("invalid_request_error", code, param) == (error["type"], error["code"], error["param"])
    assert error["message"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"prompt": "\\ud800"}', b'{"prompt": "x", "temperature": NaN}', b"\xff"])
async def test_a_body_that_cannot_be_read_is_a_bad_request(client: httpx.AsyncClient, raw: bytes) -> None:
    """Never a fault of the server."""
    reply = await client.post("/v1/completions", content=raw)

    assert 400 == reply.status_code
    assert reply.json()["error"]["message"]


async def test_a_path_the_model_is_not_served_for_is_refused() -> None:
    """A model for embeddings does not pretend to chat."""
    async with client_of(service(apis=frozenset({Api.EMBEDDINGS}))) as client:
        reply = await client.post("/v1/chat/completions", json=CHAT)

    assert 404 == reply.status_code
    assert "embeddings" in reply.json()["error"]["message"]


async def test_nothing_is_answered_while_the_model_is_loaded() -> None:
    """503 with Retry-After, health included: that is what readiness is."""
    loading = service()
    loading.served = None
    async with client_of(loading) as client:
        replies = [await client.get("/health"), await client.post("/v1/chat/completions", json=CHAT)]

    assert [(503, "1", "loading")] * 2 == [
        (reply.status_code, reply.headers["Retry-After"], reply.json()["error"]["code"]) for reply in replies
    ]


async def test_a_model_that_fails_is_an_error_and_not_the_end() -> None:
    """500 in the same envelope; the next request is served."""

    class Broken(Letters):
        def feed(self, tokens: Sequence[int]) -> int:
            raise RuntimeError("no memory")

    made = service(Broken("x"))
    async with client_of(made) as broken:
        replies = [await broken.post("/v1/chat/completions", json={**CHAT, "stream": stream}) for stream in (False, True)]
        await until("the runner has nothing to do", lambda: made.runner.counts() == (0, 0), deadline_s=5)
        health = await broken.get("/health")

    assert [(500, "model_failed")] * 2 == [(reply.status_code, reply.json()["error"]["code"]) for reply in replies]
    assert {"status": "ok", "active": 0, "waiting": 0} == health.json()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_hangs_up_ends_the_answer(stream: bool) -> None:
    """At the next token, whether it was to be streamed or not; the rest of the answer is never computed."""
    begun, loop = asyncio.Event(), asyncio.get_running_loop()

    class Endless(Letters):
        def feed(self, tokens: Sequence[int]) -> int:
            loop.call_soon_threadsafe(begun.set)
            return 0

        def decode(self, tokens: Sequence[int]) -> str:
            return "x" * len(tokens)

    made = service(Endless("", endless=True), context_tokens=10**9)
    messages: list[Any] = [
        {"type": "http.request", "body": json.dumps({**CHAT, "stream": stream}).encode(), "more_body": False},
    ]

    async def receive() -> Any:  # noqa: ANN401 -- an ASGI message
        if messages:
            return messages.pop()
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:  # noqa: ANN401 -- an ASGI message
        return None

    path = "/v1/chat/completions"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
    await build(made)({**scope, "asgi": {"version": "3.0", "spec_version": "2.3"}}, receive, send)

    await until("the runner has nothing to do", lambda: made.runner.counts() == (0, 0), deadline_s=5)


def test_a_socket_path_is_made_anew(tmp_path: Path) -> None:
    """What a killed worker left behind is in the way of the next, and is replaced."""
    from worker.__main__ import _listen  # noqa: PLC0415

    path = tmp_path / "worker.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    with _listen(path):
        assert path.is_socket()


# --- what computes


LEAST = ("--socket", "/s", "--model", "/m", "--model-name", "m", "--context-tokens", "16")


def test_the_processors_compute_unless_a_gpu_is_asked_for() -> None:
    """Whether there is a GPU does not matter: what computes is said."""
    assert (Device.CPU, Device.CUDA) == tuple(arguments.parse([*LEAST, *more]).device for more in ((), ("--device", "cuda")))
    with pytest.raises(SystemExit):
        arguments.parse([*LEAST, "--device", "tpu"])


@pytest.mark.parametrize(
    ("built_for", "said"), [(None, "use the image made for CUDA"), ("13.0", "built for CUDA 13.0, sees none")]
)
def test_a_gpu_that_is_not_there_is_an_error(built_for: str | None, said: str) -> None:
    """It is told apart whether the image or the container lacks it; the processors do not stand in."""
    with pytest.raises(LoadError, match=said):
        devices.check(Device.CUDA, gpus=0, built_for=built_for)
    devices.check(Device.CUDA, gpus=1, built_for="13.0")
    devices.check(Device.CPU, gpus=0, built_for=built_for)


@pytest.mark.parametrize(
    ("config", "capability", "expected"),
    [
        ({"dtype": "bfloat16"}, None, "auto"),
        ({"dtype": "bfloat16"}, (8, 7), "auto"),
        ({"dtype": "bfloat16"}, (7, 5), "float16"),
        ({"torch_dtype": "bfloat16"}, (7, 5), "float16"),
        ({"text_config": {"torch_dtype": "bfloat16"}}, (7, 5), "float16"),
        ({"text_config": None, "dtype": "float32"}, (7, 5), "auto"),
        ({"dtype": "float16"}, (7, 5), "auto"),
    ],
)
def test_an_old_card_computes_with_what_it_has(
    config: Mapping[str, object], capability: tuple[int, int] | None, expected: str
) -> None:
    """A card without such 16-bit floats gets the others; everything else is kept as it is stored."""
    assert expected == devices.precision(config, capability=capability)
