"""The transformers worker in its sealed container: OpenAI's client on its socket, golden values, hang-ups, bad folders."""

import asyncio
import json
import os
import secrets
import shutil
import stat
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import httpx
import numpy as np
import openai
import pytest

from controller.config import load_settings
from controller.drivers.docker import DockerDriver
from controller.spec import GROUP_GID, WORKER_UID, ModelName, WorkerSpec
from controller.units import MIB
from tests.fakeworker import client
from tests.fakeworker.place import Place
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

PROJECT = Path(__file__).parents[2]
BUILT_IN = PROJECT / "images/windlass-mini/safetensors"
GOLDEN = [
    case for case in json.loads((PROJECT / "tests/golden/windlass_mini.json").read_bytes()) if case["engine"] == "transformers"
]
MINI = ModelName("mini")
CONTEXT_TOKENS = 1024
PATIENCE_S = 200.0
"""A start of torch on a busy machine."""
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
LONG = {"prompt": "The sea", "temperature": 0, "max_tokens": 1000, "ignore_eos": True}


def described(place: Place, model: ModelName, folder: Path) -> WorkerSpec:
    """Describe a worker for a copy of *folder*, which has to be readable for the worker's user."""
    shutil.copytree(folder, place.root / "models" / model, dirs_exist_ok=True)
    argv = ("--socket", "/run/worker/worker.sock", "--model", "/model", "--model-name", model)
    limits = ("--context-tokens", str(CONTEXT_TOKENS), "--parallel", "2", "--threads", "2")
    return place.spec(
        model,
        memory_bytes=900 * MIB,
        pids_limit=128,
        argv=(*argv, *limits, "--api", "chat,completions,embeddings"),
    )


async def run(driver: DockerDriver, spec: WorkerSpec) -> None:
    """Make and start a worker."""
    await driver.create(spec)
    await driver.start(spec.model)


@pytest.fixture(scope="module")
def image() -> str:
    """Return the worker's image, as the controller would choose it."""
    return load_settings(os.environ).engine("transformers").image


@pytest.fixture(scope="module")
def mini(engine: docker.APIClient, image: str) -> Iterator[Place]:
    """Run one sealed worker with the built-in model, for all tests that leave it as it was."""
    place = Place(engine, owner=f"wt-{secrets.token_hex(4)}", image=image)

    async def begin() -> None:
        driver = DockerDriver(place.owner)
        try:
            await run(driver, described(place, MINI, BUILT_IN))
            await until("the worker answers", lambda: client.is_ready(place.socket(MINI)), deadline_s=PATIENCE_S)
        finally:
            await driver.close()

    try:
        asyncio.run(begin())
        yield place
    finally:
        print(place.report())  # noqa: T201 -- pytest shows it with a failure
        place.clear()


@pytest.fixture
def ask(mini: Place) -> Callable[..., tuple[int, Any]]:
    """Ask the worker on its socket."""
    return lambda path, body: client.ask(mini.socket(MINI), "POST", path, body, timeout_s=PATIENCE_S)


@pytest.fixture
def openai_client(mini: Place) -> Iterator[openai.OpenAI]:
    """Return OpenAI's client, which validates every answer, on the worker's socket."""
    with (
        httpx.Client(transport=httpx.HTTPTransport(uds=str(mini.socket(MINI)))) as transport,
        openai.OpenAI(
            base_url="http://worker/v1",
            api_key="none",
            http_client=transport,
            max_retries=0,
            timeout=PATIENCE_S,
            _strict_response_validation=True,
        ) as made,
    ):
        yield made


def idle(place: Place) -> bool:
    """Say whether the worker computes nothing and nobody waits."""
    _, health = client.ask(place.socket(MINI), "GET", "/health")
    return (health["active"], health["waiting"]) == (0, 0)


# --- what it says


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: str(case.get("prompt") or case["messages"][-1]["content"])[:30])
def test_golden_values(openai_client: openai.OpenAI, case: dict[str, Any]) -> None:
    """At temperature 0 the built-in model says what it always says."""
    if case["api"] == "chat":
        said = (
            openai_client.chat.completions.create(
                model=MINI, messages=case["messages"], max_tokens=case["max_tokens"], temperature=0
            )
            .choices[0]
            .message.content
        )
    else:
        said = (
            openai_client.completions.create(model=MINI, prompt=case["prompt"], max_tokens=case["max_tokens"], temperature=0)
            .choices[0]
            .text
        )

    assert case["text"] == said


def test_a_stream_says_the_same_as_a_whole_answer(openai_client: openai.OpenAI) -> None:
    """In pieces that add up, the role first, and usage last where it is asked for."""
    wanted: dict[str, Any] = {"model": MINI, "temperature": 0, "max_tokens": 40, **HELLO}

    whole = openai_client.chat.completions.create(**wanted)
    chunks = list(openai_client.chat.completions.create(**wanted, stream=True, stream_options={"include_usage": True}))

    *spoken, summary = chunks
    assert "assistant" == spoken[0].choices[0].delta.role
    assert whole.choices[0].message.content == "".join(chunk.choices[0].delta.content or "" for chunk in spoken)
    assert whole.choices[0].finish_reason == spoken[-1].choices[0].finish_reason
    assert ([], whole.usage) == (summary.choices, summary.usage)


def test_usage_is_exact(openai_client: openai.OpenAI) -> None:
    """As many tokens as were sent and asked for, by count."""
    answer = openai_client.completions.create(
        model=MINI, prompt=[300, 301, 302], max_tokens=7, temperature=0, extra_body={"ignore_eos": True}
    )

    assert answer.usage is not None
    assert (3, 7, 10) == (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens)
    assert "length" == answer.choices[0].finish_reason


def test_a_stop_string_ends_the_answer_in_the_middle_of_a_word(ask: Callable[..., tuple[int, Any]]) -> None:
    """Wherever the tokens begin and end, and it is not part of the text."""
    case = next(case for case in GOLDEN if case["api"] == "chat" and len(case["text"]) > 60)
    stop = case["text"][41:49]

    _, answer = ask("/v1/chat/completions", {"messages": case["messages"], "max_tokens": 64, "temperature": 0, "stop": stop})

    assert case["text"].split(stop)[0] == answer["choices"][0]["message"]["content"]
    assert "stop" == answer["choices"][0]["finish_reason"]


def test_a_seed_repeats_an_answer(ask: Callable[..., tuple[int, Any]]) -> None:
    """The same seed says the same at a high temperature, other seeds say other things."""
    body = {"prompt": "The", "max_tokens": 24, "temperature": 1.5, "top_p": 0.95, "top_k": 200, "ignore_eos": True}

    said = [ask("/v1/completions", {**body, "seed": seed})[1]["choices"][0]["text"] for seed in (7, 7, 8, 9)]

    assert said[0] == said[1]
    assert 3 == len(set(said))


def test_penalties_keep_it_from_repeating_itself(ask: Callable[..., tuple[int, Any]]) -> None:
    """With the highest penalties a greedy answer has more different words than without."""
    body = {"prompt": "no no no no no no", "max_tokens": 60, "temperature": 0, "ignore_eos": True}

    plain, kept = (
        ask("/v1/completions", {**body, "presence_penalty": penalty, "frequency_penalty": penalty})[1]["choices"][0]["text"]
        for penalty in (0, 2)
    )

    assert plain != kept
    assert len(set(plain.split())) < len(set(kept.split()))


def test_what_others_ask_changes_nobodys_answer(ask: Callable[..., tuple[int, Any]]) -> None:
    """More callers at once than it works on, each with its own prompt: every answer is the golden one."""
    cases = [case for case in GOLDEN if case["api"] == "chat"][:6]

    with ThreadPoolExecutor(len(cases)) as callers:
        answers = callers.map(
            lambda case: ask(
                "/v1/chat/completions", {"messages": case["messages"], "max_tokens": case["max_tokens"], "temperature": 0}
            ),
            cases,
        )

        assert [case["text"] for case in cases] == [answer["choices"][0]["message"]["content"] for _, answer in answers]


def test_similar_texts_have_similar_vectors(openai_client: openai.OpenAI) -> None:
    """Vectors of length 1, one for each text, the same as base64 (which the client asks for by itself) and as numbers."""
    texts = ["The ship sailed on the sea.", "A ship was sailing over the sea.", "Docker is a program."]

    plain = openai_client.embeddings.create(model=MINI, input=texts, encoding_format="float")
    # The client validates before it decodes, so its own default does not pass its own strictness.
    packed = openai_client.copy(_extra_kwargs={"_strict_response_validation": False}).embeddings.create(model=MINI, input=texts)

    vectors = np.array([row.embedding for row in plain.data])
    np.testing.assert_allclose(vectors, np.array([row.embedding for row in packed.data]), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 0


def test_timings_say_how_fast_it_was(ask: Callable[..., tuple[int, Any]]) -> None:
    """The gateway reads tokens a second from them."""
    _, answer = ask("/v1/completions", {"prompt": "The sea", "max_tokens": 16, "temperature": 0, "ignore_eos": True})

    timings = answer["timings"]
    assert (16, 0) == (timings["predicted_n"], timings["cache_n"])
    assert timings["predicted_per_second"] == pytest.approx(16_000 / timings["predicted_ms"])


def test_a_prompt_beyond_the_context_is_refused(openai_client: openai.OpenAI) -> None:
    """With OpenAI's code for it."""
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.completions.create(model=MINI, prompt="sea " * CONTEXT_TOKENS, max_tokens=10)

    assert "context_length_exceeded" == refused.value.code


# --- hang-ups


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hang_up_ends_the_answer(mini: Place, stream: bool) -> None:
    """Well before it would have been complete; the same answer is measured first."""
    begun_s = time.monotonic()
    client.ask(mini.socket(MINI), "POST", "/v1/completions", LONG, timeout_s=PATIENCE_S)
    whole_s = time.monotonic() - begun_s

    connection = client.UnixConnection(mini.socket(MINI), timeout_s=PATIENCE_S)
    connection.request("POST", "/v1/completions", json.dumps({**LONG, "stream": stream}))
    if stream:
        connection.getresponse().readline()
    await until("the answer has begun", lambda: not idle(mini))
    connection.close()
    gone_s = time.monotonic()
    await until("the answer has ended", lambda: idle(mini))

    assert time.monotonic() - gone_s < whole_s / 2


async def test_a_caller_who_hangs_up_in_the_queue_is_forgotten(mini: Place) -> None:
    """Its turn is never taken."""
    connections = [client.UnixConnection(mini.socket(MINI), timeout_s=PATIENCE_S) for _ in range(4)]
    for connection in connections:
        connection.request("POST", "/v1/completions", json.dumps(LONG))

    def counts() -> tuple[int, int]:
        _, health = client.ask(mini.socket(MINI), "GET", "/health")
        return health["active"], health["waiting"]

    await until("two are served and two wait", lambda: counts() == (2, 2))
    for connection in connections:
        connection.close()

    await until("nothing is left to do", lambda: idle(mini))


# --- how it is sealed


def test_the_socket_is_open_to_the_group_alone(mini: Place) -> None:
    """Gateway and controller share a group with the workers; nobody else may connect."""
    found = mini.socket(MINI).stat()

    assert (WORKER_UID, GROUP_GID) == (found.st_uid, found.st_gid)
    assert 0 == stat.S_IMODE(found.st_mode) & stat.S_IRWXO
    assert stat.S_IMODE(found.st_mode) & stat.S_IRWXG >= stat.S_IRGRP | stat.S_IWGRP


def test_nothing_is_left_in_its_scratch_space(mini: Place) -> None:
    """No cache of code, of models or of fonts: what a worker writes is memory somebody else could use."""
    _, listed = mini.run_inside(MINI, "/opt/venv/bin/python", "-c", "import os; print(sum(1 for _ in os.walk('/tmp')))")

    assert "1" == listed.strip()


async def test_a_killed_worker_comes_back_and_says_the_same(mini: Place) -> None:
    """The socket it left behind is in nobody's way."""
    driver = DockerDriver(mini.owner)
    body = {**HELLO, "temperature": 0, "max_tokens": 20}
    said = client.ask(mini.socket(MINI), "POST", "/v1/chat/completions", body)[1]["choices"]
    try:
        await driver.kill(MINI)
        await until("the kill is seen", lambda: not client.is_ready(mini.socket(MINI)))
        await driver.start(MINI)
        await until("the worker answers", lambda: client.is_ready(mini.socket(MINI)), deadline_s=PATIENCE_S)
    finally:
        await driver.close()

    assert said == client.ask(mini.socket(MINI), "POST", "/v1/chat/completions", body)[1]["choices"]


# --- folders it refuses


def evil_pickle(folder: Path) -> None:
    """Put a pickle beside the weights that would run a command when it is opened."""
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /kv/opened'\ntR.")


def pickle_alone(folder: Path) -> None:
    """Leave nothing but a pickle."""
    evil_pickle(folder)
    (folder / "model.safetensors").unlink()


def own_code(folder: Path) -> None:
    """Ask for Python of the folder's own to be run."""
    (folder / "modeling.py").write_text("open('/kv/opened', 'w')")
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "modeling.Model"}}))


def truncated(folder: Path) -> None:
    """Break the weights off."""
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)


def lying(folder: Path) -> None:
    """Let the header promise more than there is."""
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(struct.pack("<Q", len(content) * 2) + content[8:])


def unknown_kind(folder: Path) -> None:
    """Name a model that nobody has heard of."""
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "crystal-ball", "architectures": ["CrystalBall"]}))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (evil_pickle, "pytorch_model.bin"),
        (pickle_alone, "pytorch_model.bin"),
        (own_code, "auto_map"),
        (truncated, "model.safetensors"),
        (lying, "model.safetensors"),
        (unknown_kind, "CrystalBall"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_bad_folder_ends_the_worker_with_its_reason(
    place: Place, image: str, driver: DockerDriver, spoil: Callable[[Path], None], reason: str
) -> None:
    """Status 1, one line that names what is wrong, and nothing of the folder was run."""
    place.image = image
    model = ModelName("bad")
    spec = described(place, model, BUILT_IN)
    spoil(place.root / "models" / model)

    await run(driver, spec)

    def ended() -> bool:
        return not place.engine.inspect_container(place.container(model))["State"]["Running"]

    await until("the worker ends", ended, deadline_s=PATIENCE_S)
    lines = [json.loads(line) for line in (await driver.logs(model, tail=20)).splitlines()]
    assert 1 == place.engine.inspect_container(place.container(model))["State"]["ExitCode"]
    assert ["load.failed"] == [line["event"] for line in lines]
    assert reason in lines[0]["reason"]
    assert not (place.root / "kv" / model / "opened").exists()
