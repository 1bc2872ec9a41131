"""The server on TensorRT-LLM 0.12, on a stand-in for its executor that takes the recorded names and no others."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import httpx
import pytest

IMAGES = Path(__file__).parents[2] / "images"
sys.path[:0] = [str(IMAGES / "transformers"), str(IMAGES / "tensorrt-llm-jetson")]

from tests.unit.test_transformers_worker import LettersTokenizer, checkpoint, client_of, service  # noqa: E402
from tests.vendor.records import record  # noqa: E402
from tests.waiting import until  # noqa: E402
from trt import convert  # noqa: E402
from trt.answers import Answers, ExecutorError, sampling  # noqa: E402
from worker.arguments import Api, Arguments  # noqa: E402
from worker.errors import LoadError  # noqa: E402
from worker.sequence import Finished, Job, Piece, Sampling  # noqa: E402

CALLS: Final = record("executor-0.12.0-jetson").raw["calls"]
EOS: Final = 0
GREEDY: Final = Sampling(temperature=0, top_p=1, top_k=0, presence_penalty=0, frequency_penalty=0, seed=None)
JOB: Final = Job(prompt=(65, 66), max_tokens=100, stops=(), sampling=GREEDY, ignore_eos=False)


def strict(call: str, given: dict[str, Any]) -> SimpleNamespace:
    """Take the names that the branch takes."""
    unknown = set(given) - set(CALLS[call])
    assert not unknown, f"{call} takes no {unknown}"
    return SimpleNamespace(**given)


class Bindings:
    """What is made of requests."""

    @staticmethod
    def Request(**given: Any) -> SimpleNamespace:  # noqa: N802, ANN401 -- the branch's name
        """Make a request."""
        return strict("Request", given)

    @staticmethod
    def SamplingConfig(**given: Any) -> SimpleNamespace:  # noqa: N802, ANN401 -- the branch's name
        """Say how to choose."""
        return strict("SamplingConfig", given)


class Executor:
    """Answers all its requests side by side, from a script, two tokens of each at a time."""

    def __init__(self, script: str, *, ends: bool = True, keeps_end: bool = False, error: str = "") -> None:
        self.script = [*map(ord, script), *([EOS] if ends and keeps_end else [])]
        self.ends, self.error = ends, error
        self.requests: list[SimpleNamespace] = []
        self.cancelled: list[int] = []
        self.active: dict[int, int] = {}

    def enqueue_request(self, request: SimpleNamespace) -> int:
        """Begin."""
        self.requests.append(request)
        self.active[len(self.requests)] = 0
        return len(self.requests)

    def cancel_request(self, id: int) -> None:  # noqa: A002 -- the branch's name
        """End; the last response of a cancelled request still comes."""
        self.cancelled.append(id)

    def await_responses(self, timeout: timedelta) -> list[SimpleNamespace]:
        """Say what has come for anyone."""
        assert timeout > timedelta()
        said = [self._response(one) for one in list(self.active)]
        self.active = {one: at for one, at in self.active.items() if one not in self.cancelled and at >= 0}
        return said

    def _response(self, one: int) -> SimpleNamespace:
        at, wanted = self.active[one], self.requests[one - 1].max_new_tokens
        script = self.script if self.ends else self.script * (wanted // len(self.script) + 1)
        upto = min(at + 2, len(script), wanted)
        over = upto == min(len(script), wanted)
        self.active[one] = -1 if over else upto
        result = SimpleNamespace(output_token_ids=[script[at:upto]], is_final=over)
        return SimpleNamespace(request_id=one, has_error=lambda: bool(self.error), error_msg=self.error, result=result)


def answers(executor: Executor, *, eos: Sequence[int] = (EOS,)) -> Answers:
    """Answer by a stand-in."""
    return Answers(executor, Bindings, LettersTokenizer(), eos_tokens=frozenset(eos))


def told(executor: Executor, job: Job = JOB, **more: Any) -> tuple[str, Finished]:  # noqa: ANN401
    """Return a whole answer."""
    out: list[Piece | Finished] = []
    for _ in answers(executor, **more)(job, out.append):
        pass
    *pieces, last = out
    assert isinstance(last, Finished)
    return "".join(piece.text for piece in pieces if isinstance(piece, Piece)), last


# --- one answer


@pytest.mark.parametrize("keeps_end", [False, True])
def test_an_answer_ends_where_the_model_ends(keeps_end: bool) -> None:
    """The end token is no text, whether the executor hands it out or not."""
    executor = Executor("hello", keeps_end=keeps_end)
    text, last = told(executor)

    assert ("hello", "stop", 2) == (text, last.reason, last.timings.prompt_n)
    assert [] == executor.cancelled, "what is over is not taken back"


def test_an_answer_ends_at_its_limit() -> None:
    """As many tokens as were asked for, and it is said why there are no more."""
    text, last = told(Executor("ab", ends=False), replace(JOB, max_tokens=5))

    assert ("ababa", "length", 5) == (text, last.reason, last.timings.predicted_n)


def test_a_stop_string_ends_it_and_takes_the_request_back() -> None:
    """The executor knows nothing of stop strings, and would go on."""
    executor = Executor("one two three")
    text, last = told(executor, replace(JOB, stops=("two",)))

    assert ("one ", "stop", [1]) == (text, last.reason, executor.cancelled)


def test_a_second_end_token_ends_it_as_well() -> None:
    """The executor is told of one; the others are seen here."""
    executor = Executor("ab!cd")
    text, last = told(executor, eos=(EOS, ord("!")))

    assert ("ab", "stop", EOS, [1]) == (text, last.reason, executor.requests[0].end_id, executor.cancelled)


def test_end_tokens_are_ignored_where_that_was_asked() -> None:
    """Neither the executor nor we end at one."""
    executor = Executor("ab!cd")
    text, _ = told(executor, replace(JOB, ignore_eos=True), eos=(ord("!"),))

    assert ("ab!cd", None) == (text, executor.requests[0].end_id)


def test_an_answer_that_nobody_wants_is_taken_back() -> None:
    """Closing it between two tokens ends it in the executor, and what still comes for it is for nobody."""
    executor = Executor("ab", ends=False)
    both = answers(executor)
    kept: list[Piece | Finished] = []
    first, second = both(JOB, lambda _: None), both(replace(JOB, max_tokens=6), kept.append)
    for steps in (first, second, first):
        next(steps)
    first.close()
    for _ in second:
        pass

    assert [1] == executor.cancelled
    assert "ababab" == "".join(piece.text for piece in kept if isinstance(piece, Piece))


def test_an_error_of_the_executor_is_the_answers() -> None:
    """Its text reaches whoever waits."""
    with pytest.raises(ExecutorError, match="no room"):
        told(Executor("a", error="no room"))


def test_sampling_is_said_in_the_executors_words() -> None:
    """The most likely token is a top-k of 1; without a seed each answer draws another one."""
    how = Sampling(temperature=0.7, top_p=0.9, top_k=40, presence_penalty=0.5, frequency_penalty=0, seed=7)

    assert {"top_k": 1} == sampling(GREEDY)
    assert {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "random_seed": 7, "presence_penalty": 0.5} == sampling(how)
    assert 2 == len({sampling(replace(how, seed=None))["random_seed"] for _ in range(2)})
    assert 0 <= sampling(replace(how, seed=-1))["random_seed"] < 2**63


# --- by HTTP


async def test_it_answers_by_the_routes_of_the_worker() -> None:
    """Whole and in pieces."""
    made = service()
    assert made.served
    made.served = replace(made.served, causal=answers(Executor("hello")), embedder=None)
    async with client_of(made) as client:
        whole = (await client.post("/v1/completions", json={"prompt": "x"})).json()
        chat = await client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}], "stream": True})
        vectors = await client.post("/v1/embeddings", json={"input": "x"})

    frames = [json.loads(line[6:]) for line in chat.text.splitlines() if line.startswith("data: {")]
    assert ("hello", "stop") == (whole["choices"][0]["text"], whole["choices"][0]["finish_reason"])
    assert "hello" == "".join(one["choices"][0]["delta"].get("content") or "" for one in frames if one["choices"])
    assert 404 == vectors.status_code
    await until("the runner is idle", lambda: made.runner.counts() == (0, 0))


# --- loading


@pytest.fixture
def branch(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SimpleNamespace]]:
    """Put a stand-in for the branch's package where it is imported, and note what is loaded by it."""
    loaded: list[SimpleNamespace] = []

    class ModelRunnerCpp:
        @classmethod
        def from_dir(cls, engine_dir: str, **given: Any) -> SimpleNamespace:  # noqa: ANN401
            loaded.append(strict("ModelRunnerCpp.from_dir", {"engine_dir": engine_dir, **given}))
            return SimpleNamespace(session=Executor("hello"))

    def module(name: str, **holds: object) -> None:
        made = ModuleType(name)
        vars(made).update(holds)
        monkeypatch.setitem(sys.modules, name, made)

    module("tensorrt_llm")
    module("tensorrt_llm.bindings", executor=Bindings)
    module("tensorrt_llm.runtime", ModelRunnerCpp=ModelRunnerCpp)
    module("transformers", AutoTokenizer=SimpleNamespace(from_pretrained=lambda *_, **__: LettersTokenizer()))
    monkeypatch.delitem(sys.modules, "trt.loading", raising=False)
    yield loaded
    sys.modules.pop("trt.loading", None)


def arguments(folder: Path, *, context_tokens: int = 100, parallel: int = 2) -> Arguments:
    """Ask for two callers."""
    return Arguments(
        socket=Path("/s"),
        model=folder,
        model_name="m",
        context_tokens=context_tokens,
        parallel=parallel,
        threads=1,
        apis=frozenset({Api.CHAT}),
    )


def engine_file(path: Path, **built: int) -> Path:
    """Write what the builder leaves beside the engine."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"build_config": {"max_batch_size": 2, "max_seq_len": 100, **built}}))
    return path


def test_the_engine_file_is_mapped_and_its_cache_bounded(tmp_path: Path, branch: list[SimpleNamespace]) -> None:
    """Keys and values are for every caller's whole context in blocks, and no more."""
    from trt import loading  # noqa: PLC0415

    built = engine_file(tmp_path / "e")
    served = loading.load(arguments(checkpoint(tmp_path / "m")), {"eos_token_id": [5]}, engine_file=built)

    (how,) = branch
    assert (str(built), True, 2 * 128) == (how.engine_dir, how.use_mmap, how.max_tokens_in_paged_kv_cache)
    assert (100, None) == (served.context_tokens, served.embedder)


@pytest.mark.parametrize(
    ("built", "why"), [({"max_batch_size": 1}, "max_batch_size 2, got 1"), ({"max_seq_len": 99}, "100, got 99")]
)
def test_an_engine_for_less_is_refused(tmp_path: Path, branch: list[SimpleNamespace], built: dict[str, int], why: str) -> None:
    """It is told before anything is loaded."""
    from trt import loading  # noqa: PLC0415

    with pytest.raises(LoadError, match=why):
        loading.load(arguments(checkpoint(tmp_path / "m")), {}, engine_file=engine_file(tmp_path / "e", **built))
    assert [] == branch


# --- the first step of a build


def test_the_converter_runs_on_a_folder_that_was_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets its own arguments, and none of a folder that brings code or pickles."""
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "convert_checkpoint.py").write_text(
        "import sys, pathlib\npathlib.Path(sys.argv[sys.argv.index('--output_dir') + 1]).write_text(' '.join(sys.argv[1:]))\n"
    )
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder, out = checkpoint(tmp_path / "m"), tmp_path / "out"
    argv = ["llama", "--model_dir", str(folder), "--output_dir", str(out), "--dtype", "float16"]
    convert.main(argv, examples=tmp_path)
    assert " ".join(argv[1:]) == out.read_text()

    out.unlink()
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "modeling.Evil"}}')
    with pytest.raises(SystemExit, match="auto_map"):
        convert.main(argv, examples=tmp_path)
    assert not out.exists()


# --- the process


STAND_IN: Final = {
    "tensorrt_llm/__init__.py": "",
    "tensorrt_llm/runtime.py": """
from tests.unit.test_llm_jetson_worker import Executor
class ModelRunnerCpp:
    session = Executor("hello")
    @classmethod
    def from_dir(cls, engine_dir, *, rank, max_tokens_in_paged_kv_cache, use_mmap):
        return cls()
""",
    "tensorrt_llm/bindings/__init__.py": "",
    "tensorrt_llm/bindings/executor.py": """
from tests.unit.test_llm_jetson_worker import Bindings
Request, SamplingConfig = Bindings.Request, Bindings.SamplingConfig
""",
    "transformers.py": """
from tests.unit.test_transformers_worker import LettersTokenizer
class AutoTokenizer:
    @staticmethod
    def from_pretrained(path, **_):
        return LettersTokenizer()
""",
    "torch.py": "from contextlib import nullcontext as inference_mode\n",
}


async def test_the_process_answers_on_its_socket(tmp_path: Path) -> None:
    """Command line, loading beside the server, socket: the whole process, on a stand-in for the branch's package."""
    for name, text in STAND_IN.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(text)
    own = (IMAGES / "transformers", IMAGES / "tensorrt-llm-jetson", IMAGES.parent)
    built, folder, address = engine_file(tmp_path / "e"), checkpoint(tmp_path / "m"), tmp_path / "s"
    start = (
        "import sys, functools, pathlib; from trt import __main__ as here, loading; from worker.__main__ import main; "
        f"loading.load = functools.partial(loading.load, engine_file=pathlib.Path({str(built)!r})); "
        "sys.exit(main(sys.argv[1:], load=here.load))"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", start, "--socket", str(address), "--model", str(folder), "--model-name", "m"),
        *("--context-tokens", "100", "--parallel", "2", "--api", "completions", "--device", "cuda"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path / "site", *own)))},
    )
    try:
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(address), retries=0), base_url="http://worker", timeout=20
        ) as client:

            async def ready() -> bool:
                try:
                    return (await client.get("/health")).status_code == 200
                except httpx.TransportError:
                    return False

            while not await ready():
                assert process.returncode is None
                await asyncio.sleep(0.1)
            said = (await client.post("/v1/completions", json={"model": "m", "prompt": "x"})).json()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    assert "hello" == said["choices"][0]["text"]
