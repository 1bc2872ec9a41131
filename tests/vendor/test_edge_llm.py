"""TensorRT Edge-LLM's own code reads what we would tell it: command lines, bodies, checkpoints, engine files, devices."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller import engines
from controller.device import Family
from controller.engines import tensorrt_edge_llm as edge
from controller.engines.base import untaken
from controller.engines.builds import SourceDescription, Want, recipe
from controller.engines.builds import edge_llm as builds
from controller.gateway import choosing, fields, schemas
from controller.gateway.openai import passed_on
from controller.store.safetensors import read_checkpoint
from tests.checkpoints import CONFIG, write_checkpoint_folder
from tests.unit.test_edge_llm import ORIN, THOR, checkpoint
from tests.unit.test_engines import model, site
from tests.vendor import place

pytestmark = [pytest.mark.vendor, pytest.mark.timeout(900)]

ENGINE: Final = engines.find("tensorrt-edge-llm")
FEW: Final = settings(
    max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
"""Each example is a list of many, and asks the package once."""


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """Ask the package about itself."""
    told: dict[str, Any] = place.ask("facts", None)
    return told


def test_the_version_is_the_one_we_know(facts: dict[str, Any]) -> None:
    """What the engine says of the package, it says of the one in the lock."""
    assert edge.VERSION == facts["version"]


def test_every_field_is_taken_or_refused_for_a_reason(facts: dict[str, Any]) -> None:
    """A field that a release adds, drops or begins to heed is to be looked at."""
    fixed = {"frequency_penalty", "presence_penalty", "n"}  # taken at their neutral value alone
    speech = {"modalities", "audio"}

    assert set(facts["fields"]) == edge.TAKEN_FIELDS | fixed | speech | set(facts["unheeded"])
    assert not edge.TAKEN_FIELDS & (fixed | speech | set(facts["unheeded"]))
    assert not edge.IGNORED_FIELDS & set(facts["fields"])


def test_families_are_those_of_its_registry(facts: dict[str, Any]) -> None:
    """Each of ours is known there and is text alone; of those that are, the rest are parts of something else."""
    text = {name for name, parts in facts["families"].items() if parts == ["llm"]}
    parts_of_others = {
        *("cosmos3_edge_text", "gemma4_assistant", "gemma4_unified_assistant", "gemma4_unified_text", "muse_glimmer_assistant"),
        *("qwen3_asr_thinker", "qwen3_omni_moe_text", "qwen3_omni_next_text", "qwen3_omni_next_text_moe", "qwen3_omni_text"),
    }

    assert text == edge.FAMILIES | parts_of_others


KINDS: Final = {
    "fp16": edge.Precision.SIXTEEN,
    "int4_awq": edge.Precision.INT4,
    "int4_awq_modelopt": edge.Precision.INT4,
    "int4_gptq": edge.Precision.INT4,
    "int8_sq": edge.Precision.INT8,
    "fp8": edge.Precision.FP8,
    "fp8_block": edge.Precision.FP8,
    "mxfp8": edge.Precision.FP8,
    "nvfp4": edge.Precision.NVFP4,
}


def test_algorithms_are_read_alike(facts: dict[str, Any]) -> None:
    """Every name of an algorithm means the same to both of us, and what it does not read we refuse."""
    for algorithm, kind in facts["algorithms"].items():
        wanted = {KINDS[kind]} if kind else set()
        assert wanted == edge.precisions(f"quant_algo {algorithm.lower()}"), algorithm


QUANTIZED: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "awq": {"quantization_config": {"quant_method": "awq", "group_size": 128}},
    "gptq": {"quantization_config": {"quant_method": "gptq", "group_size": 128}},
    "bitsandbytes": {"quantization_config": {"quant_method": "bitsandbytes"}},
    "fp8": {"quantization_config": {"quant_method": "fp8"}},
    "packed": {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}},
    "nvfp4": {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"format": "nvfp4-pack-quantized", "weights": {"group_size": 16}}},
        }
    },
    "modelopt": {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
    "nested": {"text_config": {"quantization_config": {"quant_method": "awq"}}},
}


def test_checkpoints_are_read_alike(tmp_path: Path) -> None:
    """What our reader says of a checkpoint leads to the same answer as its own."""
    folders = {name: write_checkpoint_folder(tmp_path, name, config={**CONFIG, **said}) for name, said in QUANTIZED.items()}
    kinds = place.ask("quantization", [str(folder) for folder in folders.values()])

    for (name, folder), kind in zip(folders.items(), kinds, strict=True):
        said = read_checkpoint(folder, ("model.safetensors",)).header.quantization
        assert ({KINDS[kind]} if kind else set()) == edge.precisions(said), name


OPTIONS: Final = st.fixed_dictionaries(
    {},
    optional={
        name: st.sampled_from(known.choices)
        if known.choices
        else st.booleans()
        if known.default is False
        else st.integers(0, 9000)
        for name, known in edge.OPTIONS.items()
    },
)
SHAPES: Final = st.tuples(st.integers(16, 40_960), st.integers(1, 64), OPTIONS, st.booleans())


@FEW
@given(st.lists(SHAPES, min_size=1, max_size=40))
def test_its_parser_reads_our_command_lines(shapes: list[tuple[int, int, dict[str, Any], bool]]) -> None:
    """Whatever the model and the options, it is started for what we meant."""
    specs = [model(context_tokens=tokens, parallel=parallel, tools=tools) for tokens, parallel, _, tools in shapes]
    argvs = [ENGINE.worker(spec, replace(site(**shape[2]), device=ORIN)).argv for spec, shape in zip(specs, shapes, strict=True)]

    for (tokens, parallel, options, tools), read in zip(shapes, place.ask("parse", argvs), strict=True):
        assert "error" not in read, read
        wanted, api = read["model"], read["api"]
        assert ("/source", str(edge.cache_folder(ORIN))) == (wanted["model"], wanted["cache_dir"])
        assert (tokens, parallel) == (wanted["max_kv_cache_capacity"], wanted["max_batch_size"])
        assert min(options.get("max_input_tokens") or tokens, tokens) == wanted["max_input_len"]
        assert (parallel > 1, options.get("context_reuse", False)) == (
            wanted["enable_in_flight_batching"],
            wanted["context_cache_config"]["enabled"],
        )
        assert ("127.0.0.1", edge.PORT, "qwen", tools) == (
            api["host"],
            api["port"],
            api["served_model_name"],
            api["enable_auto_tool_choice"],
        )
        assert options.get("log_level", "warning") == api["log_level"]


@FEW
@given(st.lists(SHAPES, min_size=1, max_size=40))
def test_its_builder_reads_our_command_lines(shapes: list[tuple[int, int, dict[str, Any], bool]]) -> None:
    """And builds exactly what its server would build for what that is started with."""
    source = SourceDescription(header=checkpoint(), weights=PurePosixPath(), files=frozenset({"tokenizer.json"}))
    pairs = []
    for tokens, parallel, options, _ in shapes:
        want = Want(engine=ENGINE.name, context_tokens=tokens, parallel=parallel, options=options)
        (step,) = recipe(source, want).steps
        served = ENGINE.worker(model(context_tokens=tokens, parallel=parallel), replace(site(**options), device=ORIN))
        pairs.append((step.argv[1:], served.argv))

    for ours, its_own in place.ask("parse_build", pairs):
        assert ours == its_own


def test_the_builder_is_where_we_call_it() -> None:
    """The program is one that the package installs, and the environment is where the image has it."""
    program = Path(
        recipe(
            SourceDescription(header=checkpoint(), weights=PurePosixPath(), files=frozenset({"tokenizer.json"})),
            Want(engine=ENGINE.name, context_tokens=64),
        )
        .steps[0]
        .argv[0]
    )

    assert (place.python().parent / program.name).exists()
    assert "/opt/venv/bin" == str(program.parent)


MESSAGE: Final = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "assistant"]), "content": st.text(max_size=20)}
)
BODY: Final = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(MESSAGE, min_size=1, max_size=3)},
    optional={
        "max_tokens": st.none() | st.integers(1, 500),
        "max_completion_tokens": st.none() | st.integers(1, 500),
        "temperature": st.none() | st.floats(0, 2),
        "top_p": st.none() | st.floats(0.01, 1),
        "top_k": st.integers(-1, 100),
        "min_p": st.sampled_from([None, 0, 0.0]),
        "n": st.sampled_from([None, 1]),
        "seed": st.none() | st.integers(0, 2**63 - 1),
        "stop": st.none() | st.text(max_size=5) | st.lists(st.text(max_size=5), max_size=3),
        "stream": st.none() | st.booleans(),
        "stream_options": st.none() | st.fixed_dictionaries({"include_usage": st.booleans()}),
        "frequency_penalty": st.sampled_from([None, 0, 0.0]),
        "presence_penalty": st.sampled_from([None, 0]),
        "repetition_penalty": st.sampled_from([None, 1, 1.0]),
        "logit_bias": st.none() | st.dictionaries(st.integers(0, 999).map(str), st.floats(-100, 100), max_size=2),
        "logprobs": st.sampled_from([None, False, True]),
        "tools": st.sampled_from([None, [], [{"type": "function", "function": {"name": "f", "parameters": {}}}]]),
        "tool_choice": st.sampled_from([None, "auto", "none"]),
        "parallel_tool_calls": st.none() | st.booleans(),
        "response_format": st.sampled_from([None, {"type": "text"}, {"type": "json_object"}]),
        "modalities": st.sampled_from([None, ["text"]]),
        "audio": st.none(),
        "user": st.none() | st.text(max_size=5),
        "store": st.none() | st.booleans(),
        "metadata": st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=1),
        "service_tier": st.none() | st.just("auto"),
        "reasoning_effort": st.none() | st.just("low"),
        "tags": st.none(),
        "conversation_id": st.just("c"),
        "whatever": st.none(),
    },
)


def _sent(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the body as our gateway would send it, which is what `/v1/chat/completions` does."""
    body = schemas.check(schemas.ChatBody, raw)
    raw = dict(raw)
    if limit := body.max_tokens or body.max_completion_tokens:
        raw.pop("max_completion_tokens", None)
        raw["max_tokens"] = limit
    return dict(fields.for_engine(passed_on(raw, "m"), ENGINE.name))


@FEW
@given(st.lists(BODY, min_size=1, max_size=60))
def test_its_request_model_takes_our_bodies(bodies: list[dict[str, Any]]) -> None:
    """Whatever a client of OpenAI's API may send that is not refused before, is taken."""
    for raw in bodies:
        assert not untaken(ENGINE, fields.asked(raw, beside=choosing.OUR_FIELDS))

    sent = [_sent(raw) for raw in bodies]
    assert [""] * len(bodies) == place.ask("check", sent), sent


def test_it_takes_nothing_that_we_leave_out(facts: dict[str, Any]) -> None:
    """The other way round: without our sieve each of these is an error there, so that the sieve is needed."""
    hello = {"messages": [{"role": "user", "content": "hi"}]}
    bodies = [{**hello, name: "x"} for name in sorted(edge.IGNORED_FIELDS)] + [{**hello, "n": None}, {**hello, "logprobs": None}]

    assert all(place.ask("check", bodies))


def write_engine_file(folder: Path, *, context_tokens: int = 512, parallel: int = 1) -> Path:
    """Make what a build leaves: the files that its server looks for, in the shape that was asked for."""
    folder.mkdir()
    said = {
        "engine_role": "llm",
        "builder_config": {
            "max_input_len": context_tokens,
            "max_batch_size": parallel,
            "max_kv_cache_capacity": context_tokens,
        },
        "checkpoint_identity": {"version": 1, "sources": {}},
        "model_type": "qwen2",
    }
    (folder / "config.json").write_text(json.dumps(said))
    for name in ("llm.engine", "tokenizer.json", "manifest.json"):
        (folder / name).write_bytes(b"{}")
    return folder


def _ask_hit(tmp_path: Path, *, context_tokens: int = 512, lay_out: bool = True) -> dict[str, Any]:
    """Start a server for this context in front of an engine file that was built for 512 tokens."""
    source = tmp_path / "source"
    if not source.exists():
        write_checkpoint_folder(tmp_path, "source", config={**CONFIG, "model_type": "qwen2"})
    engine_file = tmp_path / "engine"
    if not engine_file.exists():
        write_engine_file(engine_file)
    argv = list(ENGINE.worker(model(context_tokens=context_tokens, parallel=1), replace(site(), device=ORIN)).argv)
    argv[0] = str(source)
    argv[argv.index("--cache-dir") + 1] = str(tmp_path / "cache")
    answer: dict[str, Any] = place.ask("hit", {"argv": argv, "engine_file": str(engine_file), "lay_out": lay_out})
    return answer


def test_an_engine_file_is_a_hit_in_its_cache(tmp_path: Path) -> None:
    """Its server finds what was laid out where it looks by itself, wants to build nothing, and changes nothing of ours."""
    before = sorted((path.name, path.stat().st_mtime_ns) for path in write_engine_file(tmp_path / "engine").iterdir())
    answer = _ask_hit(tmp_path)
    again = _ask_hit(tmp_path)

    assert ("", []) == (answer["error"], answer["built"])
    assert answer["laid_out"] == answer["found"] == again["found"]
    laid_out = Path(answer["found"])
    assert ["config.json", "llm.engine", "tokenizer.json"] == sorted(path.name for path in laid_out.iterdir())
    assert all(path.resolve().parent == tmp_path / "engine" for path in laid_out.iterdir())
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "engine").iterdir())


def test_without_it_the_server_would_build(tmp_path: Path) -> None:
    """That the hit is ours, and not what it finds in any case."""
    answer = _ask_hit(tmp_path, lay_out=False)

    assert answer["built"]
    assert "--max-kv-cache-capacity" in answer["built"][0]


def test_an_engine_for_another_shape_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    """The process ends with a sentence, and does not build in the model's memory."""
    answer = _ask_hit(tmp_path, context_tokens=1024)

    assert "wanted an engine for" in answer["error"]
    assert not answer["built"]


def test_half_an_engine_file_is_refused(tmp_path: Path) -> None:
    """So is one that lacks its engine."""
    (write_engine_file(tmp_path / "engine") / "llm.engine").unlink()

    assert "or part of one" in _ask_hit(tmp_path)["error"]


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """Read what the package for a Jetson brings."""
    read: dict[str, Any] = json.loads(place.read(place.wheel_for_jetson(), "tensorrt_edgellm/_native/variants.json"))
    return read


@pytest.mark.parametrize(("device", "family"), [(ORIN, Family.ORIN), (THOR, Family.THOR)])
def test_a_device_that_we_take_is_one_it_has_code_for(manifest: dict[str, Any], device: Any, family: Family) -> None:  # noqa: ANN401
    """By release, GPU and processor; and for the Python, CUDA and TensorRT that the image has."""
    (row,) = [one for one in manifest["variants"] if one["variant_id"] == edge.PAYLOADS[family]]

    assert "" == ENGINE.refusal(device)
    assert ("l4t", [f"R{device.l4t.rpartition('.')[0]}"]) == (row["platform_probe_source"], row["platform_probe_values"])
    assert (device.sm, device.architecture, "cp312") == (str(row["gpu_sm"]), row["cpu_arch"], row["python_abi"])
    assert ("libcudart.so.13", "libnvinfer.so.10") == (row["cuda_runtime_soname"], row["tensorrt_runtime_soname"])


@pytest.mark.parametrize("family", [Family.ORIN, Family.THOR])
def test_only_other_devices_code_is_taken_out(manifest: dict[str, Any], family: Family, tmp_path: Path) -> None:
    """Of the real package for a Jetson one payload stays, the package's own loader takes it, and nothing else is gone."""
    kept = edge.PAYLOADS[family]
    package = tmp_path / "tensorrt_edgellm"
    with zipfile.ZipFile(place.wheel_for_jetson()) as archive:
        inside = [info for info in archive.infolist() if info.filename.startswith("tensorrt_edgellm/") and not info.is_dir()]
        for info in inside:
            if f"/payloads/{kept}/" in info.filename or info.file_size < 2**20:
                archive.extract(info, tmp_path)
            else:  # its size will do
                (tmp_path / info.filename).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / info.filename).touch()
    answer = place.ask("slim", {"package": str(package), "payload": kept})

    assert "" == answer["error"]
    left = {str(path.relative_to(tmp_path)) for path in package.rglob("*") if path.is_file()}
    gone = {info.filename for info in inside} - left
    others = {row["variant_id"] for row in manifest["variants"]} - {kept}
    assert gone == {info.filename for info in inside if any(f"/payloads/{other}/" in info.filename for other in others)}


def test_a_payload_that_was_tampered_with_is_not_taken(tmp_path: Path) -> None:
    """The check while the image is made is one that can fail."""
    kept = edge.PAYLOADS[Family.ORIN]
    with zipfile.ZipFile(place.wheel_for_jetson()) as archive:
        for info in archive.infolist():
            if info.filename.startswith("tensorrt_edgellm/_native/") and not info.is_dir():
                if info.file_size < 2**20:
                    archive.extract(info, tmp_path)
                else:
                    (tmp_path / info.filename).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / info.filename).write_bytes(b"something else")

    assert "SHA-256 mismatch" in place.ask("slim", {"package": str(tmp_path / "tensorrt_edgellm"), "payload": kept})["error"]
    assert (
        "none of that name" in place.ask("slim", {"package": str(tmp_path / "tensorrt_edgellm"), "payload": "toaster"})["error"]
    )


def test_the_wheel_is_the_one_that_the_image_gets() -> None:
    """The recipe's lock has the hash of this very file."""
    assert "tensorrt_edgellm-0.11.0-cp312-cp312-manylinux_2_39_aarch64.whl" == place.wheel_for_jetson().name
    assert builds.OUTPUT == PurePosixPath("bundle")
