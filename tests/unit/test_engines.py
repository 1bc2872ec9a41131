"""The engines as data: argv, mounts, paths, estimates, options."""

import itertools
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import engines
from controller.device import NO_GPU
from controller.engines.base import Engine, Site, WeightsHeader
from controller.engines.transformers import Transformers
from controller.errors import ModelError
from controller.spec import ApiPath, Footprint, FootprintSource, ModelName, ModelSpec, Mount
from controller.units import parse_bytes

QWEN2_05B: Mapping[str, Any] = {
    "format": "gguf",
    "architecture": "qwen2",
    "weights_bytes": 988_208_640,
    "parameters": 494_032_768,
    "layers": 24,
    "embedding_length": 896,
    "feed_forward_length": 4864,
    "heads": 14,
    "kv_heads": 2,
    "head_length": 64,
    "vocabulary": 151_936,
    "context_tokens": 32_768,
    "chat": True,
    "tools": True,
    "embeddings": False,
}
ANY_ENGINE = pytest.mark.parametrize("engine", engines.ENGINES.values(), ids=list(engines.ENGINES))


def header(**changes: object) -> WeightsHeader:
    """Describe Qwen2 0.5B at 16 bit, or something like it."""
    return WeightsHeader(**{**QWEN2_05B, **changes})


def model(**changes: object) -> ModelSpec:
    """Describe a model of that kind, as the catalog would."""
    values: dict[str, Any] = {
        "name": ModelName("qwen"),
        "engine": "llama-cpp",
        "folder": PurePosixPath("/home/models/qwen"),
        "weights": PurePosixPath("qwen.gguf"),
        "weights_bytes": 992_550_112,
        "digest": "d",
        "context_tokens": 2000,
        "parallel": 2,
        "footprint": Footprint(total_bytes=10**9, weights_bytes=9 * 10**8, private_bytes=10**8, source=FootprintSource.ESTIMATE),
        "load_s": 1.7,
        "api_paths": frozenset({ApiPath.CHAT, ApiPath.COMPLETIONS}),
    }
    return ModelSpec(**{**values, **changes})


def site(**options: str | int | bool) -> Site:
    """Describe a box."""
    return Site(
        image="windlass/engine:tag",
        run_root=PurePosixPath("/run/windlass/workers"),
        kv_root=PurePosixPath("/home/kv"),
        threads=3,
        options=options,
    )


def test_engines_are_found_by_name() -> None:
    """The registry knows each engine under the name it gives itself."""
    names = ["llama-cpp", "transformers", "tensorrt-edge-llm", "tensorrt-llm", "tensorrt-llm-jetson"]

    assert dict(zip(names, names, strict=True)) == {name: engines.find(name).name for name in engines.ENGINES}


def test_unknown_engine_is_refused_with_those_there_are() -> None:
    """A wrong name is answered with the right ones."""
    with pytest.raises(ModelError, match=r"llama-cpp, transformers, .*, got 'vllm'"):
        engines.find("vllm")


def test_format_decides_when_no_engine_is_named() -> None:
    """GGUF goes to llama.cpp, safetensors to transformers, and nothing else to anyone."""
    assert ("llama-cpp", "transformers") == (engines.choose("gguf").name, engines.choose("safetensors").name)
    with pytest.raises(ModelError, match=r"gguf, safetensors, got 'onnx'"):
        engines.choose("onnx")


def test_llama_cpp_argv() -> None:
    """The server is told everything that its defaults would leave to chance."""
    worker = engines.find("llama-cpp").worker(model(), site())

    assert (
        *("--host", "/run/worker/worker.sock"),
        *("--model", "/model/qwen.gguf"),
        *("--alias", "qwen"),
        *("--ctx-size", "4096"),
        *("--parallel", "2"),
        "--no-kv-unified",
        *("--threads", "3"),
        *("--threads-http", "10"),
        *("--batch-size", "512"),
        *("--ubatch-size", "128"),
        *("--cache-type-k", "f16"),
        *("--cache-type-v", "f16"),
        *("--fit", "off"),
        *("--cache-ram", "0"),
        "--no-cache-idle-slots",
        *("--ctx-checkpoints", "0"),
        "--no-repack",
        "--no-warmup",
        "--no-context-shift",
        *("--slot-save-path", "/kv"),
        "--jinja",
        "--metrics",
        "--no-webui",
        "--offline",
        *("--log-verbosity", "2"),
    ) == worker.argv


def test_llama_cpp_options_reach_the_server() -> None:
    """What the configuration sets is what the server is started with."""
    options = site(ubatch_size=256, batch_size=64, repack=True, warmup=True, kv_type="q8_0", log_verbosity=3)

    argv = engines.find("llama-cpp").worker(model(), options).argv

    assert {"--repack", "--warmup"} <= set(argv)
    assert {"--ubatch-size": "256", "--batch-size": "256", "--cache-type-v": "q8_0", "--log-verbosity": "3"}.items() <= dict(
        itertools.pairwise(argv)
    ).items()


def test_llama_cpp_embedding_model_reads_its_input_at_once() -> None:
    """An embedding looks at its whole input, so the micro-batch is as long as the context."""
    argv = engines.find("llama-cpp").worker(model(api_paths=frozenset({ApiPath.EMBEDDINGS})), site()).argv

    assert "--embeddings" in argv
    assert "2000" == argv[argv.index("--ubatch-size") + 1]


def test_llama_cpp_adapters_are_applied() -> None:
    """Adapters of the folder are given by their place inside the worker."""
    argv = engines.find("llama-cpp").worker(model(lora=(PurePosixPath("a.gguf"), PurePosixPath("b.gguf"))), site()).argv

    assert "/model/a.gguf,/model/b.gguf" == argv[argv.index("--lora") + 1]


def test_transformers_argv() -> None:
    """The server is told its model, its limits and what it serves."""
    worker = engines.find("transformers").worker(
        model(engine="transformers", api_paths=frozenset({ApiPath.EMBEDDINGS, ApiPath.CHAT})), site()
    )

    assert (
        *("--socket", "/run/worker/worker.sock"),
        *("--model", "/model"),
        *("--model-name", "qwen"),
        *("--context-tokens", "2000"),
        *("--parallel", "2"),
        *("--threads", "3"),
        *("--api", "chat,embeddings"),
    ) == worker.argv


@ANY_ENGINE
def test_worker_sees_its_own_folders_and_nothing_else(engine: Engine) -> None:
    """The model is mounted to be read, the run and the KV directory to be written, and the socket is where they say.

    Whatever an engine needs beside that, it reads.
    """
    worker = engine.worker(model(), site())

    assert (
        Mount(source=PurePosixPath("/home/models/qwen"), target=PurePosixPath("/model"), read_only=True),
        Mount(source=PurePosixPath("/run/windlass/workers/qwen"), target=PurePosixPath("/run/worker"), read_only=False),
        Mount(source=PurePosixPath("/home/kv/qwen"), target=PurePosixPath("/kv"), read_only=False),
    ) == worker.mounts[:3]
    assert all(mount.read_only for mount in worker.mounts[3:])
    assert (PurePosixPath("/run/windlass/workers/qwen/worker.sock"), "windlass/engine:tag", 10**9) == (
        worker.socket,
        worker.image,
        worker.memory_bytes,
    )


@pytest.mark.parametrize("engine", [engines.find(name) for name in ("llama-cpp", "transformers")])
def test_what_a_model_can_be_asked_follows_from_its_header(engine: Engine) -> None:
    """A template makes it chat; an embedding model does nothing but embed."""
    assert ApiPath.CHAT in engine.api_paths(header())
    assert ApiPath.CHAT not in engine.api_paths(header(chat=False))
    assert ApiPath.COMPLETIONS in engine.api_paths(header(chat=False))
    assert frozenset({ApiPath.EMBEDDINGS}) == engine.api_paths(header(embeddings=True))


def test_generators_embed_where_the_engine_can() -> None:
    """llama.cpp's server either generates or embeds; the transformers worker does both."""
    embeds = {name for name, engine in engines.ENGINES.items() if ApiPath.EMBEDDINGS in engine.api_paths(header())}

    assert embeds == {"transformers"}


def test_six_half_billion_models_at_16_bit_fit_by_estimate() -> None:
    """Six of them, 2048 tokens each, fit into 7.4 GiB before any has ever run."""
    footprint = engines.find("llama-cpp").estimate(header(), context_tokens=2048, parallel=1)

    assert 6 * footprint.total_bytes <= parse_bytes("7.4GiB")


@pytest.mark.parametrize(
    ("changes", "parallel", "options", "measured_private_bytes"),
    [
        ({}, 1, {}, 90_300_000),
        ({}, 4, {}, 169_000_000),
        ({}, 1, {"ubatch_size": 512}, 121_900_000),
        ({}, 1, {"kv_type": "q8_0"}, 78_600_000),
        (
            {
                "weights_bytes": 3_087_718_400,
                "layers": 28,
                "embedding_length": 1536,
                "feed_forward_length": 8960,
                "head_length": 128,
            },
            1,
            {},
            139_600_000,
        ),
    ],
)
def test_llama_cpp_estimate_covers_what_was_measured(
    changes: dict[str, object], parallel: int, options: dict[str, str | int | bool], measured_private_bytes: int
) -> None:
    """The estimate lies above the private memory that sealed workers took, and not more than 80 MB above it."""
    estimate = engines.find("llama-cpp").estimate(header(**changes), context_tokens=2048, parallel=parallel, options=options)

    assert measured_private_bytes < estimate.private_bytes < measured_private_bytes + 80_000_000


def test_llama_cpp_repacking_takes_the_weights_twice() -> None:
    """Repacked weights are private memory beside the mapped file."""
    engine = engines.find("llama-cpp")
    plain = engine.estimate(header(), context_tokens=2048, parallel=1)
    repacked = engine.estimate(header(), context_tokens=2048, parallel=1, options={"repack": True})

    assert header().weights_bytes == repacked.total_bytes - plain.total_bytes


@ANY_ENGINE
@given(
    context_tokens=st.integers(min_value=16, max_value=100_000),
    parallel=st.integers(min_value=1, max_value=64),
    embeddings=st.booleans(),
)
def test_estimate_grows_with_what_is_asked(engine: Engine, context_tokens: int, parallel: int, embeddings: bool) -> None:
    """More context or more callers never need less, and the parts add up."""
    here = engine.estimate(header(embeddings=embeddings), context_tokens=context_tokens, parallel=parallel)
    longer = engine.estimate(header(embeddings=embeddings), context_tokens=context_tokens + 256, parallel=parallel)
    wider = engine.estimate(header(embeddings=embeddings), context_tokens=context_tokens, parallel=parallel + 1)

    assert here.total_bytes == here.weights_bytes + here.private_bytes
    assert here.total_bytes <= longer.total_bytes
    assert here.total_bytes <= wider.total_bytes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ubatch": 4}, "engines.llama-cpp.options.ubatch: no such option; there are batch_size, gpu_layers, gpu_load, kv_type"),
        ({"ubatch_size": "4"}, "engines.llama-cpp.options.ubatch_size: wanted a whole number, got '4'"),
        ({"ubatch_size": True}, "engines.llama-cpp.options.ubatch_size: wanted a whole number, got True"),
        ({"ubatch_size": 0}, "engines.llama-cpp.options.ubatch_size: wanted at least 1, got 0"),
        ({"repack": 1}, "engines.llama-cpp.options.repack: wanted true or false, got 1"),
        ({"kv_type": "q2"}, "engines.llama-cpp.options.kv_type: wanted one of f16, q8_0, got 'q2'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, str | int | bool], said: str) -> None:
    """An option that there is not, or of another kind, is a sentence with its key."""
    (problem,) = engines.find("llama-cpp").check_options(options)

    assert problem.startswith(said)


@ANY_ENGINE
def test_right_options_have_no_problems(engine: Engine) -> None:
    """No options at all, and each engine's own defaults, are right."""
    assert () == engine.check_options({})
    assert () == engines.find("llama-cpp").check_options({"ubatch_size": 4, "repack": False, "kv_type": "q8_0"})


@pytest.mark.parametrize("said", ["quant_method awq", "quant_method compressed-tensors pack-quantized", "quant_algo nvfp4"])
def test_transformers_refuses_what_needs_a_package_of_its_own(said: str) -> None:
    """The image holds none, so no worker would come to answer; what the library reads by itself is taken."""
    assert f"quantised ({said})" in Transformers().refusal(NO_GPU, header(quantization=said))
    assert not Transformers().refusal(NO_GPU, header(quantization="quant_method fp8"))
    assert not Transformers().refusal(NO_GPU, header())
