"""Folders with `engine = "auto"`: which engine each gets, what is served until it can, and what is said of the others."""

import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from controller import engines
from controller.config import EngineSettings, Settings
from controller.device import NO_GPU, Device, Family, Gpu, GpuAccess
from controller.engines.choice import Failed
from controller.engines.llama_cpp import LlamaCpp
from controller.spec import Footprint, FootprintSource, ModelName, ModelSpec
from controller.store.catalog import NO_LIMIT_BYTES, Catalog, Scanner
from controller.store.database import open_database
from controller.store.engine_files import EngineFile, EngineFiles
from controller.store.ledger import Ledger, LedgerKey
from controller.store.orders import Order
from controller.store.setbacks import Setbacks
from controller.units import GIB, MIB
from tests.checkpoints import gguf, write_checkpoint_folder, write_gguf_folder

M = ModelName("m")
AUTO = 'engine = "auto"\n'


class Home:
    """A home with models, engine files, measurements and setbacks, looked at an hour later."""

    def __init__(self, home: Path) -> None:
        self.models = home / "models"
        self.models.mkdir()
        database = open_database(home / "state.db")
        self.files = EngineFiles(home / "engines", database)
        self.ledger = Ledger(database)
        self.setbacks = Setbacks(database, wall=time.time)
        self.missing: set[str] = set()
        self.tags: dict[str, str] = {}
        self.budget_bytes = NO_LIMIT_BYTES
        self.device = NO_GPU
        self._scanner: Scanner | None = None

    def scanner(self) -> Scanner:
        """Return a new scanner."""
        images = {name: EngineSettings(image=tag) for name, tag in self.tags.items()}
        return Scanner(
            Settings(home=PurePosixPath(self.models.parent), engines=images),
            self.ledger,
            shelf=self.files,
            budget_bytes=self.budget_bytes,
            memory_bytes=16 * GIB,
            device=self.device,
            setbacks=self.setbacks,
            has_image=lambda name: name not in self.missing,
            now=lambda: time.time() + 3600.0,
        )

    def scan(self, *, anew: bool = True) -> Catalog:
        """Look, as a controller that was just started does, or as one that has looked before."""
        if anew or self._scanner is None:
            self._scanner = self.scanner()
        return self._scanner.scan()

    def model(self) -> ModelSpec:
        """Return the one model that is served as its folder is."""
        found = self.scan()
        assert ((), ()) == (found.problems, found.orders)
        (model,) = found.models
        return model

    def order(self, *, anew: bool = True) -> Order:
        """Return the one order there is."""
        found = self.scan(anew=anew)
        assert () == found.problems
        (order,) = found.orders
        return order

    def checkpoint(self, manifest: str = AUTO, name: str = "m") -> Path:
        """Drop a checkpoint."""
        folder = write_checkpoint_folder(self.models, name)
        (folder / "tokenizer.json").write_text("{}")
        (folder / "model.toml").write_text(manifest)
        return folder

    def build(self, order: Order) -> EngineFile:
        """Do what an order wants."""
        (self.files.begin(order.fingerprint) / order.recipe.output).write_bytes(gguf())
        return self.files.commit(order.key, order.recipe.output, model=order.model, seconds=1.0)

    def ran(self, spec: ModelSpec, *, tokens_per_s: float) -> None:
        """Have a model answer."""
        image = self.tags.get(spec.engine, f"windlass/{spec.engine}:local")
        key = LedgerKey.of(spec, image=image, device="cpu", options=dict(spec.options))
        self.ledger.saw_request(key, tokens=10, tokens_per_s=tokens_per_s)

    def fails(self, spec: ModelSpec) -> None:
        """Have the engine of a model fail with it."""
        assert spec.choice is not None
        self.setbacks.note(spec.name, spec.engine, spec.choice.key, failed=Failed.BUILD, reason="it needs more memory")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Make an empty home."""
    return Home(tmp_path)


def others(spec: ModelSpec) -> dict[str, str]:
    """Return what is said of the other engines."""
    assert spec.choice is not None
    return dict(spec.choice.others)


def test_a_folder_that_asks_for_nothing_keeps_the_engine_of_its_files(home: Home) -> None:
    """Without a word in its manifest, or with an engine's name, no model changes its engine by an upgrade."""
    write_gguf_folder(home.models, "a")
    home.checkpoint("", "b")
    home.checkpoint('engine = "transformers"\n', "c")
    found = home.scan()

    assert [("a", "llama-cpp"), ("b", "transformers"), ("c", "transformers")] == [(m.name, m.engine) for m in found.models]
    assert {None} == {model.choice for model in found.models}


def test_a_gguf_is_for_llama_cpp(home: Home) -> None:
    """It is served as it is, and the others say why they cannot."""
    write_gguf_folder(home.models, "m", manifest=AUTO)
    model = home.model()

    assert "llama-cpp" == model.engine
    assert model.choice is not None
    assert "no other engine here can run it" == model.choice.reason
    assert "wanted a .safetensors file, got none" in others(model)["transformers"]


def test_a_checkpoint_is_built_for_llama_cpp_where_there_is_no_gpu(home: Home) -> None:
    """The order says which engine it is for and why, and who takes its place if it cannot be built."""
    home.checkpoint()
    order = home.order()

    assert "llama-cpp" == order.recipe.engine == order.spec.engine
    assert order.spec.choice is not None
    assert "it is the leanest where no GPU can be used" == order.spec.choice.reason
    assert "transformers" == order.spec.choice.successor
    assert "stands behind llama-cpp on this box" == others(order.spec)["transformers"]
    assert order.served is None


def test_of_two_formats_each_engine_reads_its_own(home: Home) -> None:
    """What is an error where an engine is to be known by the files is none here."""
    folder = home.checkpoint()
    (folder / "model.gguf").write_bytes(gguf())
    model = home.model()
    home.missing = {"llama-cpp"}

    assert ("llama-cpp", PurePosixPath("model.gguf")) == (model.engine, model.weights)
    assert ("transformers", PurePosixPath()) == (home.model().engine, home.model().weights)


def test_an_embedding_checkpoint_is_for_transformers(home: Home) -> None:
    """It reads them all."""
    home.checkpoint(AUTO + 'tags = ["embeddings"]\n')
    model = home.model()

    assert "transformers" == model.engine
    assert "does not serve /v1/embeddings" in others(model)["llama-cpp"]


@pytest.mark.parametrize("line", ['tags = ["tools"]', "tools = true"])
def test_who_must_call_tools_is_for_who_can(home: Home, line: str) -> None:
    """`transformers` takes no tools, whatever else speaks for it."""
    home.checkpoint(AUTO + line + "\n")
    order = home.order()

    assert "llama-cpp" == order.spec.engine
    assert "does not serve tools" in others(order.spec)["transformers"]


def test_an_option_of_one_engine_is_a_word_for_it(home: Home) -> None:
    """An engine that does not know an option of the manifest cannot run the model as it is meant."""
    home.checkpoint(AUTO + "[options]\ninterop_threads = 2\n")
    model = home.model()

    assert "transformers" == model.engine
    assert "no such option" in others(model)["llama-cpp"]


def test_a_quantisation_is_a_word_for_llama_cpp(home: Home) -> None:
    """Nobody else stores weights another way."""
    home.checkpoint(AUTO + 'quantization = "q8_0"\ntags = ["embeddings"]\n')

    assert "llama-cpp" == home.order().spec.engine


@pytest.mark.parametrize("missing", ["llama-cpp", "transformers"])
def test_an_engine_without_its_image_is_no_choice(home: Home, missing: str) -> None:
    """Nor is one whose build needs an image that is not there: the converter's is that of `transformers`."""
    home.checkpoint()
    home.missing = {missing}
    found = home.scan()

    if missing == "transformers":
        (problem,) = found.problems
        assert "llama-cpp: image windlass/transformers:local is not on this box" in problem.text
    else:
        (model,) = found.models
        assert "transformers" == model.engine
        assert "run `make images`" in others(model)["llama-cpp"]


def test_what_is_built_needs_no_converter(home: Home) -> None:
    """The image that made a file may be gone when the file is there."""
    home.checkpoint()
    home.build(home.order())
    home.missing = {"transformers"}

    assert home.order().done


def test_an_image_that_comes_is_seen_without_a_change_of_the_folder(home: Home) -> None:
    """The folder is read once, and settled at every look."""
    home.checkpoint()
    home.missing = {"llama-cpp"}
    first = home.scan()
    home.missing.clear()

    assert ["transformers"] == [model.engine for model in first.models]
    assert "llama-cpp" == home.order(anew=False).spec.engine


def test_what_does_not_fit_is_passed_over(home: Home) -> None:
    """`transformers` alone takes more than this budget; what takes less to build and to run is taken."""
    home.checkpoint(AUTO + 'tags = ["embeddings"]\n')
    home.budget_bytes = 400 * MIB
    order = home.order()

    assert "llama-cpp" == order.spec.engine
    assert "and the budget is 400 MiB" in others(order.spec)["transformers"]


def test_who_failed_is_passed_over_until_something_is_another_way(home: Home) -> None:
    """The failure holds over restarts; another image, other weights or a word of the operator end it."""
    folder = home.checkpoint()
    home.fails(home.order().spec)
    fallen = home.model()

    assert "transformers" == fallen.engine
    assert fallen.choice is not None
    assert "llama-cpp could not be built here: it needs more memory" == fallen.choice.reason
    assert fallen.choice.fell_back
    home.tags = {"llama-cpp": "windlass/llama-cpp:new"}
    assert "llama-cpp" == home.order().spec.engine
    home.tags = {}
    assert "transformers" == home.model().engine
    (folder / "tokenizer.json").write_text('{"other": 1}')
    assert "llama-cpp" == home.order().spec.engine
    home.fails(home.order().spec)
    assert "transformers" == home.model().engine
    assert home.setbacks.forget(M)
    assert "llama-cpp" == home.order().spec.engine


def test_a_failure_is_seen_without_a_change_of_the_folder(home: Home) -> None:
    """The next look of the same scanner passes on."""
    home.checkpoint()
    home.fails(home.order().spec)

    assert ["transformers"] == [model.engine for model in home.scan(anew=False).models]


def test_the_failure_of_an_engine_that_has_answered_counts_for_nothing(home: Home) -> None:
    """Whatever is noted: it works, and one crash under load moves no model."""
    home.checkpoint()
    order = home.order()
    home.build(order)
    served = home.order().served
    assert served is not None
    home.ran(served, tokens_per_s=5.0)
    home.fails(order.spec)
    after = home.order()

    assert "llama-cpp" == after.spec.engine
    assert after.spec.choice is not None
    assert "" == after.spec.choice.successor


def test_what_has_answered_goes_on_until_the_better_one_is_built(home: Home) -> None:
    """A new image gives the first choice another chance, and nobody waits for that."""
    home.checkpoint()
    home.fails(home.order().spec)
    home.ran(home.model(), tokens_per_s=5.0)
    home.tags = {"llama-cpp": "windlass/llama-cpp:new"}
    order = home.order()

    assert "llama-cpp" == order.spec.engine
    assert order.served is not None
    assert "transformers" == order.served.engine
    assert order.served.choice is not None
    assert "goes on until llama-cpp can" in order.served.choice.reason
    assert "" == order.served.choice.successor
    home.build(order)
    done = home.order().served
    assert done is not None
    assert "llama-cpp" == done.engine


def test_the_faster_of_two_that_ran_is_taken_at_the_next_start(home: Home) -> None:
    """Not in the middle of a run, whatever the figures say then."""
    home.checkpoint()
    home.build(home.order())
    first = home.order()
    slow = first.served
    assert slow is not None
    home.ran(slow, tokens_per_s=5.0)
    (home.models / "m" / "model.toml").write_text('engine = "transformers"\n')
    home.ran(home.model(), tokens_per_s=9.0)
    (home.models / "m" / "model.toml").write_text(AUTO)
    model = home.model()

    assert "transformers" == model.engine
    assert model.choice is not None
    assert "it was measured here at 9.0 tokens/s, llama-cpp at 5.0" == model.choice.reason
    home.ran(slow, tokens_per_s=900.0)
    assert ["transformers"] == [model.engine for model in home.scan(anew=False).models]
    assert "llama-cpp" == home.order().spec.engine


def test_measurements_of_another_context_are_not_compared(home: Home) -> None:
    """A longer context is slower, and another model as far as speed goes."""
    home.checkpoint()
    home.build(home.order())
    slow = home.order().served
    assert slow is not None
    home.ran(slow, tokens_per_s=5.0)
    (home.models / "m" / "model.toml").write_text('engine = "transformers"\ncontext = 64\n')
    home.ran(home.model(), tokens_per_s=9.0)
    (home.models / "m" / "model.toml").write_text(AUTO)

    assert "llama-cpp" == home.order().spec.engine


@pytest.mark.parametrize("proven", [False, True])
def test_a_load_that_ran_out_of_memory_counts_if_it_never_answered(home: Home, proven: bool) -> None:
    """What it would get next is more than there is; an engine that has answered is refused with the figures instead."""
    folder = home.checkpoint()
    (folder / "model.gguf").write_bytes(gguf())
    home.budget_bytes = 1024 * MIB
    first = home.model()
    if proven:
        home.ran(first, tokens_per_s=5.0)
    key = LedgerKey.of(first, image="windlass/llama-cpp:local", device="cpu")
    home.ledger.saw_too_little(key, limit_bytes=1000 * MIB)
    after = home.model()

    assert ("llama-cpp" if proven else "transformers") == after.engine
    assert proven or "needs 1.23 GiB, and the budget is 1 GiB" in others(after)["llama-cpp"]


def test_what_no_card_could_hold_is_passed_over(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of cards is a second budget, and what is kept of it for others is not for models."""
    card = Gpu(index=0, name="A", sm="89", memory_bytes=8 * GIB)
    home.device = Device(family=Family.DISCRETE, driver="580.1", cuda="13.0", gpus=(card,), access=GpuAccess.RUNTIME)
    large = type("Large", (LlamaCpp,), {"estimate": lambda *_, **__: needing(8 * GIB)})()
    monkeypatch.setattr(engines, "ENGINES", {"llama-cpp": large, "transformers": engines.ENGINES["transformers"]})
    folder = home.checkpoint()
    (folder / "model.gguf").write_bytes(gguf())
    model = home.model()

    assert "transformers" == model.engine
    assert "needs 8 GiB on cards, more than they could ever hold of it" == others(model)["llama-cpp"]


def needing(gpu_bytes: int) -> Footprint:
    """Make a footprint on a card."""
    return Footprint(total_bytes=MIB, weights_bytes=0, private_bytes=MIB, source=FootprintSource.ESTIMATE, gpu_bytes=gpu_bytes)


def test_nobody_is_a_problem(home: Home) -> None:
    """The text says of every engine why it cannot."""
    folder = home.checkpoint()
    (folder / "model.safetensors").unlink()
    (problem,) = home.scan().problems

    assert problem.text.startswith("no engine can run it here: llama-cpp: wanted a ")
    assert "; transformers: wanted a " in problem.text


def test_an_order_by_hand_follows_the_choice(home: Home) -> None:
    """What is to be built is what the engine chosen now wants."""
    home.checkpoint()

    assert "llama-cpp" == home.scanner().order("m").spec.engine


def refusing(why: str) -> Callable[..., str]:
    """Make an engine's answer that it cannot run something here."""
    return lambda *_: why


def test_an_engine_that_refuses_the_device_is_no_choice_and_a_problem_by_name(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an engine says of the box is passed on: among the reasons, or as the folder's problem where it is named."""
    picky = type("Picky", (LlamaCpp,), {"refusal": refusing("needs JetPack 7.2")})()
    monkeypatch.setattr(engines, "ENGINES", {**engines.ENGINES, "llama-cpp": picky})
    folder = home.checkpoint()

    assert ("transformers", "needs JetPack 7.2") == (home.model().engine, others(home.model())["llama-cpp"])
    (folder / "model.toml").write_text('engine = "llama-cpp"\n')
    (problem,) = home.scan().problems
    assert "engine 'llama-cpp' cannot run it here: needs JetPack 7.2" == problem.text


def test_what_is_remembered_outlives_the_controller(tmp_path: Path) -> None:
    """Setbacks and the engines models had are in the database, and a new failure takes the place of the one before."""
    database = open_database(tmp_path / "state.db")
    setbacks = Setbacks(database, wall=lambda: 7.0)
    setbacks.note(M, "llama-cpp", "old", failed=Failed.BUILD, reason="no room")
    setbacks.note(M, "llama-cpp", "key", failed=Failed.LOAD, reason="no memory")
    first = setbacks.chose(M, "llama-cpp")
    again = Setbacks(database, wall=lambda: 8.0)
    known = again.find(M, "llama-cpp", "key")

    assert known is not None
    assert (Failed.LOAD, "no memory", 7.0) == (known.failed, known.reason, known.at_s)
    assert (None, None) == (again.find(M, "llama-cpp", "old"), again.find(M, "transformers", "key"))
    assert ("", "llama-cpp") == (first, again.chose(M, "transformers"))
    assert (True, False) == (again.forget(M), again.forget(M))
    assert Setbacks(database, wall=time.time).find(M, "llama-cpp", "key") is None
