"""
Asked in the environment of NVIDIA's package: `driver.py VERB`, with JSON on standard input and output.

`serve` runs the package's own HTTP application in front of a stand-in for its runtime, which is the one part that needs a GPU.
"""

import argparse
import contextlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path


def parse(argvs):
    """Read command lines of the server as it does."""
    from experimental.server.config import ServerConfigError, parse_server_config

    answers = []
    for argv in argvs:
        try:
            with contextlib.redirect_stderr(sys.stdout):
                answers.append(asdict(parse_server_config(argv)))
        except (SystemExit, ServerConfigError) as exc:
            answers.append({"error": str(exc)})
    return answers


def parse_build(argvs):
    """Read command lines of the builder as it does, those that the server would use for the same included."""
    from experimental.builder.cli import _parser
    from experimental.server.config import parse_server_config
    from experimental.server.runtime.engine_build import BuildOptions

    def read(argv):
        return {name: value for name, value in vars(_parser().parse_args(argv)).items() if not callable(value)}

    answers = []
    for build, serve in argvs:
        config = parse_server_config(serve).model
        options = BuildOptions(
            max_input_len=config.max_input_len,
            max_batch_size=config.max_batch_size,
            max_kv_cache_capacity=config.max_kv_cache_capacity,
        )
        own = options.to_argv(config.model, build[build.index("--engine-dir") + 1])
        answers.append([read(build), read(own)])
    return answers


def check(bodies):
    """Read bodies as its request model does: an empty text for each that it takes."""
    from experimental.server.api.protocol import ChatCompletionRequest
    from pydantic import ValidationError

    answers = []
    for body in bodies:
        try:
            ChatCompletionRequest.model_validate(body)
        except ValidationError as exc:
            answers.append(str(exc))
        else:
            answers.append("")
    return answers


def facts(_):
    """Tell what the package says of itself."""
    import tensorrt_edgellm
    from experimental.builder.core.quantization import algorithm_to_type
    from experimental.builder.models import registry
    from experimental.server.api import protocol

    def kind(algorithm):
        try:
            return algorithm_to_type(algorithm)
        except ValueError:
            return ""

    names = (
        "W4A16_AWQ",
        "INT4_AWQ",
        "AWQ",
        "GPTQ",
        "W8A8_SQ_PER_CHANNEL",
        "INT8_SQ",
        "FP8",
        "FP8_PB_WO",
        "MXFP8",
        "NVFP4",
        "MXFP4",
        "NVFP4_AWQ",
    )
    return {
        "version": tensorrt_edgellm.__version__,
        "fields": sorted(protocol.ChatCompletionRequest.model_fields),
        "unheeded": sorted(protocol._UNSUPPORTED_SAMPLING_DEFAULTS),
        "families": {name: sorted(part.value for part in found[1]) for name, found in registry._BY_ROOT.items()},
        "algorithms": {name: kind(name) for name in names},
    }


def quantization(folders):
    """Read how checkpoints are quantised, as its builder does; an empty text for one that it does not read."""
    from experimental.builder.core.quantization import parse_quantization

    answers = []
    for folder in folders:
        config = json.loads(Path(folder, "config.json").read_text())
        try:
            answers.append(parse_quantization(folder, config, config.get("text_config") or config).quant_type)
        except ValueError:
            answers.append("")
    return answers


def hit(value):
    """Lay out an engine file and start the package's engine up to the native code: what it found, what it wanted to build."""
    from experimental.builder import cli as builder
    from experimental.server.config import parse_server_config
    from experimental.server.runtime import engine

    from edge.bundle import BundleError, lay_out

    built = []
    builder.main = lambda argv: built.append(list(argv))
    engine.LLM._load_runtime = lambda self: None
    config = parse_server_config(value["argv"]).model
    answer = {"laid_out": "", "error": "", "found": "", "built": built}
    try:
        if value["lay_out"]:
            answer["laid_out"] = str(lay_out(Path(value["engine_file"]), config))
        answer["found"] = engine.load_model(**config.llm_kwargs()).bundle_dir
    except (BundleError, RuntimeError) as exc:
        answer["error"] = str(exc)
    return answer


def slim(value):
    """Take out of a package what a device does not need."""
    from edge import slim as slimming

    try:
        return {"removed_bytes": slimming.slim(Path(value["package"]), value["payload"]), "error": ""}
    except (SystemExit, RuntimeError) as exc:
        return {"removed_bytes": 0, "error": str(exc)}


class StandIn:
    """A runtime without a GPU: it says words, slowly if the message says so, or fails as the native one does."""

    runtime_kind = "chat"
    video_capable = False
    has_draft_model = False

    def __init__(self, model_dir, bundle_dir, log):
        from experimental.server.runtime.engine_layout import inspect_bundle

        self.model_dir, self.bundle_dir, self.model_id, self._log = model_dir, bundle_dir, "model", log
        self.bundle_layout = inspect_bundle(bundle_dir)

    def note(self, text):
        """Say what happened, for the test that looks."""
        with Path(self._log).open("a") as file:
            file.write(f"{text}\n")

    def _make_generation_request(self, messages, params, **_):
        return {"text": messages[-1]["content"]}

    def _run(self, text):
        """Fail as the native code does, which begins with the first token."""
        if "too long" in text:
            raise RuntimeError("EDGELLM_INPUT_TOO_LONG: 9999 tokens, and max_input_len is 2048")
        if "break" in text:
            raise RuntimeError("CUDA error 719")

    def _complete_prepared_request(self, request, params, tool_config, *, on_handle=None, **_):
        from experimental.server.runtime.engine import CompletionOutput

        self._run(request["text"])
        if "slow" in request["text"]:
            time.sleep(1.5)
        return CompletionOutput(text="said hi", token_ids=[1, 2], prompt_tokens=7, finish_reason="stop")

    def generate_stream(self, messages, params, *, prebuilt_request=None, **_):
        """Say a few words, or for a long time."""
        from experimental.server.runtime.engine import StreamDelta

        def words():
            self._run(prebuilt_request["text"])
            try:
                yield StreamDelta(text="Once", token_ids=[1], prompt_tokens=7)
                for number in range(2000 if "slow" in prebuilt_request["text"] else 2):
                    if "slow" in prebuilt_request["text"]:
                        time.sleep(0.02)
                    yield StreamDelta(text=f" {number}", token_ids=[number])
                yield StreamDelta(finished=True, finish_reason="stop")
                self.note("done")
            finally:
                self.note("closed")

        return words()

    def close(self):
        """Give back nothing."""
        self.note("released")


def serve(value):
    """Serve until told to end, on the socket or the port given."""
    import uvicorn
    from experimental.server.api.app import create_app
    from experimental.server.config import parse_server_config
    from experimental.server.runtime.engine_client import EngineClient

    config = parse_server_config(value["argv"])
    client = EngineClient(StandIn(value["model_dir"], value["bundle_dir"], value["log"]), config.api)
    where = {"uds": value["socket"]} if value.get("socket") else {"host": config.api.host, "port": config.api.port}
    uvicorn.run(create_app(client, config.api), log_level=config.api.log_level, **where)
    return {}


def worker(argv):
    """Be a worker of our image: everything but the native code is what runs on a Jetson."""
    from experimental.builder import cli as builder
    from experimental.server import cli
    from experimental.server.runtime import engine

    from edge import __main__ as image

    def refuse(_):
        raise SystemExit("the server wanted to build")

    def load(**options):
        found = engine.load_model(**options)
        return StandIn(found.model_dir, found.bundle_dir, "/run/worker/log")

    builder.main = refuse
    engine.LLM._load_runtime = lambda self: None
    cli.load_model = load
    image.main(argv)
    return {}


VERBS = {verb.__name__: verb for verb in (parse, parse_build, check, facts, quantization, hit, slim, serve, worker)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=sorted(VERBS))
    parser.add_argument("value", nargs="?")
    arguments = parser.parse_args()
    given = json.loads(arguments.value if arguments.value is not None else sys.stdin.read())
    print(json.dumps(VERBS[arguments.verb](given)))
