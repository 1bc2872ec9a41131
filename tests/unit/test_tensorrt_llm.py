"""TensorRT-LLM: what we say to its server is what that takes, by the record or, where it is, by the package itself."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from controller import engines
from controller.charges import OnCard
from controller.device import Device, Family, Gpu
from controller.engines import tensorrt_llm
from controller.engines.base import Site
from controller.gateway.fields import for_engine
from controller.probes.device import read_device
from controller.spec import ApiPath, Mount, Spread
from controller.units import GIB, MIB
from tests.devices import NAMES, recorded
from tests.unit.test_engines import header, model, site
from tests.vendor.records import is_installed, record

ENGINE: Final = engines.find("tensorrt-llm")
SERVE: Final = record("tensorrt_llm-1.2.1")


def device(name: str) -> Device:
    """Return a recorded box."""
    recording = recorded(name)
    return read_device(recording.system, recording.engine)


def here(**options: str | int | bool) -> Site:
    """Describe a box with two cards."""
    return replace(site(**options), device=device("discrete-2"))


def checkpoint(**changes: Any) -> Any:  # noqa: ANN401
    """Describe the model as a checkpoint."""
    return header(**{"format": "safetensors", "stored": "bf16", **changes})


# --- the server's options


def test_the_record_is_of_the_version_in_the_image() -> None:
    """A new version of the package needs a new record."""
    assert ("tensorrt_llm", tensorrt_llm.VERSION) == (SERVE.raw["package"], SERVE.raw["version"])


@pytest.mark.parametrize("cards", [(OnCard(0, GIB),), (OnCard(0, GIB), OnCard(1, GIB))])
def test_its_server_takes_what_it_is_told(cards: tuple[OnCard, ...]) -> None:
    """Every word of the command line is one that the server knows, with a value that it takes."""
    command, *argv = ENGINE.worker(model(engine="tensorrt-llm", cards=cards), here()).argv

    assert "serve" == command
    assert {
        "model": "/served/qwen",
        "--host": "127.0.0.1",
        "--port": "8000",
        "--backend": "pytorch",
        "--max_batch_size": "2",
        "--max_seq_len": "2000",
        "--max_num_tokens": "2000",
        "--tensor_parallel_size": str(len(cards)),
        "--log_level": "warning",
        "--config": "/tmp/llm-args.yaml",
    } == SERVE.parse(argv)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["/m", "--no-such"], "knows no --no-such"),
        (["/m", "--tp_size", "2", "--tensor_parallel_size", "2"], "given twice"),
        (["/m", "--port", "http"], "invalid literal"),
        (["/m", "--backend", "onnx"], "wants one of pytorch, tensorrt, _autodeploy, got 'onnx'"),
        (["/m", "--port"], "wants a value"),
        (["--port", "1"], "wants model"),
        (["/m", "/n"], "takes no argument"),
    ],
)
def test_the_record_is_read_strictly(argv: list[str], why: str) -> None:
    """What the server would refuse, the record refuses: otherwise it proves nothing."""
    with pytest.raises(ValueError, match=why):
        SERVE.parse(argv)


def test_the_package_itself_agrees_with_the_record() -> None:
    """Where the package is installed, its own definitions have every option and field of the record, and no other."""
    own = _own_definitions() if is_installed("tensorrt_llm") else None

    assert own in (None, {"options": sorted(SERVE.options), "bodies": {n: b["fields"] for n, b in SERVE.raw["bodies"].items()}})


def _own_definitions() -> Mapping[str, object]:
    from tensorrt_llm.commands.serve import serve  # type: ignore[import-not-found]  # noqa: PLC0415
    from tensorrt_llm.serve.openai_protocol import (  # type: ignore[import-not-found]  # noqa: PLC0415
        ChatCompletionRequest,
        CompletionRequest,
    )

    spellings = sorted(word for option in serve.params for word in option.opts if word.startswith("--"))
    bodies = {"chat": ChatCompletionRequest, "completions": CompletionRequest}
    return {"options": spellings, "bodies": {name: sorted(body.model_fields) for name, body in bodies.items()}}


# --- what it is told beside them


def test_the_cache_is_as_large_as_the_estimate_says() -> None:
    """Keys and values are bounded by tokens: by itself the server takes nine tenths of the card."""
    worker = ENGINE.worker(model(engine="tensorrt-llm"), here())
    arguments = json.loads(worker.env["WINDLASS_LLM_ARGS"])

    assert {"kv_cache_config": {"dtype": "auto", "enable_block_reuse": False, "max_tokens": 2 * 2016}} == arguments


def test_options_reach_it() -> None:
    """What the configuration sets is in the file that the launcher writes."""
    worker = ENGINE.worker(model(engine="tensorrt-llm"), here(block_reuse=True, cuda_graphs=False, kv_type="fp8"))

    assert {
        "cuda_graph_config": None,
        "kv_cache_config": {"dtype": "fp8", "enable_block_reuse": True, "max_tokens": 4032},
    } == json.loads(worker.env["WINDLASS_LLM_ARGS"])


def test_it_is_called_what_callers_call_it() -> None:
    """The server names a model after the last part of its path: so that is the name callers use, also of a replica."""
    worker = ENGINE.worker(replace(model(engine="tensorrt-llm"), name="qwen~2", replica_of="qwen"), here())

    assert Mount(source=model().folder, target=tensorrt_llm.SERVED / "qwen", read_only=True) == worker.mounts[-1]
    assert "/served/qwen" == worker.argv[1]


def test_several_cards_need_memory_between_them() -> None:
    """One card needs no further process; several talk by shared memory."""
    one, two = (
        ENGINE.worker(model(engine="tensorrt-llm", cards=cards), here())
        for cards in ((OnCard(1, GIB),), (OnCard(0, GIB), OnCard(1, GIB)))
    )

    assert ("1", None) == tuple(spec.env.get("TLLM_WORKER_USE_SINGLE_PROCESS") for spec in (one, two))
    assert (0, GIB) == (one.shm_bytes, two.shm_bytes)
    assert (here().device.requests((1,)), here().device.requests((0, 1))) == (one.devices, two.devices)


def test_nothing_is_compiled_into_a_folder_that_forbids_programs() -> None:
    """What is compiled at run time is loaded from where it is kept, and the file system in /tmp allows no programs."""
    env = ENGINE.worker(model(engine="tensorrt-llm"), here()).env

    assert all(env[name].startswith("/kv/") for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"))


# --- bodies


PATHS: Final = {"chat": "messages", "completions": "prompt"}


def test_no_field_that_it_does_not_take_is_sent() -> None:
    """Whatever we let through is a field of one of its two bodies, where another one is an error."""
    taken = {name for body in SERVE.raw["bodies"].values() for name in (*body["fields"], *body["aliases"].values())}

    assert set() == tensorrt_llm.TAKEN_FIELDS - taken
    assert {"extra"} == {name for body in SERVE.raw["bodies"].values() for name, value in body.items() if value == "forbid"}


@pytest.mark.parametrize("path", PATHS)
def test_a_usual_body_passes(path: str) -> None:
    """What OpenAI's clients send arrives as the server takes it, without what it would stumble over."""
    sent = {
        "model": "qwen",
        PATHS[path]: "Hello",
        "max_tokens": 5,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "store": False,
        "tools": [],
        "tool_choice": "none",
        "metadata": {"a": "b"},
        "seed": None,
    }
    body = SERVE.raw["bodies"][path]

    received = for_engine(sent, "tensorrt-llm")

    assert {"model", PATHS[path], "max_tokens", "temperature", "stream", "stream_options"} == set(received)
    assert set(received) <= {*body["fields"], *body["aliases"].values()}


def test_sets_of_fields_do_not_overlap() -> None:
    """A field is taken, left out or refused."""
    assert frozenset() == tensorrt_llm.TAKEN_FIELDS & (tensorrt_llm.IGNORED_FIELDS | tensorrt_llm.REFUSED_FIELDS)
    assert frozenset() == tensorrt_llm.IGNORED_FIELDS & tensorrt_llm.REFUSED_FIELDS


# --- where it runs


CARD: Final = Gpu(index=0, name="NVIDIA L4", sm="89", memory_bytes=24 * GIB)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no-gpu", "this box has none"),
        ("orin-nano-jp6.2.2", "this box is a Jetson"),
        ("orin-nano-jp7.2", "this box is a Jetson"),
        ("agx-thor-jp7.2", "this box is a Jetson"),
        ("agx-orin-64-jp6.1", "this box is a Jetson"),
        ("discrete-1", "with a driver for CUDA 13.0 (580 or later), and here is driver 570"),
        ("discrete-2", ""),
    ],
)
def test_it_says_why_it_does_not_run_on_a_box(name: str, why: str) -> None:
    """The reason names what is wanted, what is there, and where there is another way."""
    said = ENGINE.refusal(device(name))

    assert why in said
    assert bool(why) == bool(said)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"gpus": (CARD, replace(CARD, index=1, name="NVIDIA T4", sm="75"))},
            "SM 80 and later (Ampere), and here is NVIDIA T4 (SM 75)",
        ),
        ({"gpus": (replace(CARD, sm=""),)}, "SM unknown"),
        ({"cuda": ""}, "for CUDA unknown"),
        ({"cuda": "12.9"}, "for CUDA 12.9"),
        ({"cuda": "13"}, "for CUDA 13"),
        ({"cuda": "13.2"}, ""),
        ({"access": Device().access}, "no container of this box can use one"),
    ],
)
def test_each_fault_of_a_box_with_cards_is_named(changes: Mapping[str, Any], why: str) -> None:
    """Cards that are too old, a driver that is too old, a container engine without GPUs."""
    said = ENGINE.refusal(replace(device("discrete-2"), **changes))

    assert why in said
    assert bool(why) == bool(said)


@pytest.mark.parametrize("name", [name for name in NAMES if device(name).family is not Family.DISCRETE])
def test_it_runs_on_cards_alone(name: str) -> None:
    """No other box is let through."""
    assert ENGINE.refusal(device(name))


def test_models_that_it_cannot_serve_are_refused() -> None:
    """GGUF and embedding models have other engines."""
    box = device("discrete-2")

    assert "reads safetensors, and these weights are gguf" in ENGINE.refusal(box, header())
    assert "no text generator" in ENGINE.refusal(box, checkpoint(embeddings=True))
    assert "" == ENGINE.refusal(box, checkpoint())
    assert (frozenset(), frozenset({ApiPath.COMPLETIONS})) == (
        ENGINE.api_paths(checkpoint(embeddings=True)),
        ENGINE.api_paths(checkpoint(chat=False)),
    )


# --- what it needs


def test_a_card_holds_weights_cache_and_work_space() -> None:
    """The cache is as large as the server is told to make it, and the process stays in the box's memory."""
    small, large = (
        ENGINE.estimate(checkpoint(), context_tokens=tokens, parallel=1, device=device("discrete-2")) for tokens in (2048, 4096)
    )
    kv_bytes = 2 * 24 * 2 * 64 * 2 * 2048

    assert small.gpu_bytes > checkpoint().weights_bytes + kv_bytes + 2 * GIB
    assert large.gpu_bytes - small.gpu_bytes > kv_bytes
    assert (small.total_bytes, 0) == (large.total_bytes, large.weights_bytes)
    assert small.gpu_each_bytes < small.gpu_bytes - checkpoint().weights_bytes


def test_eight_bits_are_half_the_cache() -> None:
    """Keys and values in 8 bits take half the bytes, and nothing else changes."""
    full, half = (
        ENGINE.estimate(checkpoint(), context_tokens=2048, parallel=1, device=device("discrete-2"), options=options)
        for options in ({}, {"kv_type": "fp8"})
    )

    assert 24 * 2 * 64 * 2 * 2048 == full.gpu_bytes - half.gpu_bytes


@pytest.mark.parametrize(("kv_heads", "counts"), [(2, (2,)), (8, (2, 4, 8)), (4, (2, 4)), (3, ())])
def test_it_is_split_only_where_every_card_gets_whole_heads(kv_heads: int, counts: tuple[int, ...]) -> None:
    """Each card takes the same, and heads are not divided."""
    found = ENGINE.estimate(checkpoint(heads=24, kv_heads=kv_heads), context_tokens=2048, parallel=1, device=device("discrete-2"))

    assert Spread(counts=counts, even=True) == found.spread
    assert found.gpu_each_bytes > 512 * MIB
