"""Folders that want an engine file built: what is ordered, what is served meanwhile, and what is served then."""

import json
import os
import time
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from controller.config import EngineSettings, Settings
from controller.device import NO_GPU, Device, Family, Gpu, GpuAccess
from controller.engines.builds import Quantization
from controller.errors import ModelError
from controller.store.catalog import NO_LIMIT_BYTES, Catalog, Scanner
from controller.store.database import open_database
from controller.store.engine_files import EngineFile, EngineFiles
from controller.store.orders import Order
from controller.units import GIB, MIB
from tests.checkpoints import gguf, safetensors, tensor, write_checkpoint_folder, write_gguf_folder
from tests.unit.test_edge_llm import ORIN

LARGE = gguf(tensors=[tensor("token_embd.weight", (64, 4096))], data_bytes=64 * 4096 * 4)
"""A GGUF of 32 bits: any of ours is smaller."""


class Shelf:
    """A home with models and engine files, looked at an hour later."""

    def __init__(self, home: Path) -> None:
        self.models = home / "models"
        self.models.mkdir()
        self.files = EngineFiles(home / "engines", open_database(home / "state.db"))
        self.image = "windlass/llama-cpp:1"
        self.budget_bytes = NO_LIMIT_BYTES
        self.device: Device = NO_GPU

    def scanner(self) -> Scanner:
        """Return a new scanner."""
        engines = {name: EngineSettings(image=self.image) for name in ("llama-cpp", "tensorrt-edge-llm")}
        settings = Settings(home=PurePosixPath(self.models.parent), engines=engines)
        return Scanner(
            settings, shelf=self.files, budget_bytes=self.budget_bytes, device=self.device, now=lambda: time.time() + 3600.0
        )

    def scan(self) -> Catalog:
        """Look once."""
        return self.scanner().scan()

    def only(self) -> Order:
        """Return the one order there is."""
        found = self.scan()

        assert () == found.problems
        (order,) = found.orders
        assert found.models == (() if order.served is None else (order.served,))
        return order

    def problem(self) -> str:
        """Return what is wrong with the one folder there is."""
        found = self.scan()

        assert ((), ()) == (found.models, found.orders)
        (row,) = found.problems
        return row.text

    def build(self, order: Order, raw: bytes | None = None) -> EngineFile:
        """Do what an order wants."""
        (self.files.begin(order.fingerprint) / order.recipe.output).write_bytes(raw or gguf())
        return self.files.commit(order.key, order.recipe.output, model=order.model, seconds=1.0)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Make an empty home."""
    return Shelf(tmp_path)


def checkpoint(shelf: Shelf, manifest: str = 'engine = "llama-cpp"\nquantization = "Q8_0"\n') -> Path:
    """Drop a checkpoint that is to be served as a GGUF."""
    folder = write_checkpoint_folder(shelf.models, "m")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.toml").write_text(manifest)
    return folder


def test_a_checkpoint_for_llama_cpp_is_ordered(shelf: Shelf) -> None:
    """It is no model until it is built; then the engine file is what is served, by its own digest."""
    checkpoint(shelf)
    order = shelf.only()
    made = shelf.build(order)
    served = shelf.only()

    assert (Quantization.Q8_0, "model.toml says q8_0", None, False) == (
        order.recipe.quantization,
        order.reason,
        order.served,
        order.done,
    )
    assert ("llama-cpp", "m") == (order.spec.engine, order.spec.name)
    assert served.done
    assert served.served is not None
    assert (made.folder, PurePosixPath("model.gguf")) == (served.served.folder, served.served.weights)
    assert len(gguf()) == served.served.weights_bytes
    assert served.fingerprint == order.fingerprint
    assert served.served.digest != order.spec.digest


def test_without_a_word_the_best_is_chosen(shelf: Shelf) -> None:
    """A checkpoint that must be converted is converted to the best that fits, and the reason says so."""
    checkpoint(shelf, 'engine = "llama-cpp"\n')
    order = shelf.only()
    shelf.budget_bytes = 10 * MIB

    assert Quantization.BF16 is order.recipe.quantization
    assert order.reason.startswith("auto: bf16 is the best")
    assert "auto found none that fits" in shelf.problem()


def test_a_gguf_is_served_until_the_smaller_one_is_built(shelf: Shelf) -> None:
    """Where the source can be served it is, and where it does not fit it is not."""
    folder = write_gguf_folder(shelf.models, "m", LARGE, manifest='quantization = "q4_0"\n')
    order = shelf.only()
    assert order.served is not None
    shelf.budget_bytes = order.served.footprint.total_bytes - 1
    too_large = shelf.only()

    assert PurePosixPath(folder) == order.served.folder
    assert not order.done
    assert too_large.served is None
    assert too_large.spec.footprint.total_bytes < shelf.budget_bytes


def test_a_limit_of_its_own_counts(shelf: Shelf) -> None:
    """A source larger than the memory its manifest grants is not served in it."""
    write_gguf_folder(shelf.models, "m", LARGE, manifest='quantization = "q4_0"\nmemory = "16MiB"\n')

    assert shelf.only().served is None


def test_what_is_stored_so_is_not_built(shelf: Shelf) -> None:
    """`auto` that fits as it is wants nothing built."""
    write_gguf_folder(shelf.models, "m", LARGE, manifest='quantization = "auto"\n')
    found = shelf.scan()

    assert ((), ()) == (found.orders, found.problems)
    assert ["m"] == [model.name for model in found.models]


def test_more_bits_than_there_are_is_a_problem(shelf: Shelf) -> None:
    """What cannot be brought back is not built, and the sentence says why."""
    write_gguf_folder(shelf.models, "m", manifest='quantization = "bf16"\n')

    assert "more bits bring nothing back" in shelf.problem()


def test_another_image_is_another_file_and_the_old_one_stands_in(shelf: Shelf) -> None:
    """After an upgrade the file is built anew, and until then the one that is there is served."""
    write_gguf_folder(shelf.models, "m", LARGE, manifest='quantization = "q4_0"\n')
    shelf.budget_bytes = 100 * MIB
    old = shelf.build(shelf.only())
    shelf.image = "windlass/llama-cpp:2"
    order = shelf.only()

    assert not order.done
    assert order.served is not None
    assert old.folder == order.served.folder


def test_a_file_that_was_touched_is_not_served_before_it_is_compared(shelf: Shelf) -> None:
    """Until its hash is known to be right it is an order like one that is not built."""
    checkpoint(shelf)
    made = shelf.build(shelf.only())
    os.utime(Path(made.folder) / "model.gguf", (1, 1))
    order = shelf.only()
    shelf.files.verify(made.fingerprint)

    assert (False, None) == (order.done, order.served)
    assert order.file is not None
    assert shelf.only().done


@pytest.mark.parametrize("change", ["weights", "tokenizer", "adapter", "quantization"])
def test_another_source_is_another_file(shelf: Shelf, change: str) -> None:
    """Whatever goes into the result makes it another one when it changes."""
    folder = checkpoint(shelf)
    peft(folder / "style")
    (folder / "model.toml").write_text('engine = "llama-cpp"\nquantization = "q8_0"\nlora = ["style"]\n')
    before = shelf.only()
    if change == "quantization":
        (folder / "model.toml").write_text('engine = "llama-cpp"\nquantization = "q4_0"\nlora = ["style"]\n')
    else:
        changed = {"weights": "model.safetensors", "tokenizer": "tokenizer.json", "adapter": "style/adapter_model.safetensors"}
        os.utime(folder / changed[change], (1, 1))

    assert before.fingerprint != shelf.only().fingerprint


@pytest.mark.parametrize("line", ["pinned = true", 'description = "Better."', "context = 128"])
def test_what_does_not_go_into_the_result_leaves_it_as_it_is(shelf: Shelf, line: str) -> None:
    """A manifest may change in everything else."""
    folder = checkpoint(shelf)
    before = shelf.only()
    (folder / "model.toml").write_text(f'engine = "llama-cpp"\nquantization = "q8_0"\n{line}\n')

    assert before.fingerprint == shelf.only().fingerprint


def peft(folder: Path) -> None:
    """Write an adapter as PEFT saves it."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (folder / "adapter_model.safetensors").write_bytes(safetensors())


@pytest.mark.parametrize("where", ["a folder", "beside the weights"])
@pytest.mark.parametrize("engine", ["llama-cpp", "transformers"])
def test_an_adapter_of_peft_is_merged(shelf: Shelf, where: str, engine: str) -> None:
    """In a folder of its own or beside the weights, for a GGUF or for a checkpoint; what is served has it in its weights."""
    folder = write_checkpoint_folder(shelf.models, "m")
    (folder / "tokenizer.json").write_text("{}")
    peft(folder if where == "beside the weights" else folder / "style")
    name = "adapter_model.safetensors" if where == "beside the weights" else "style"
    (folder / "model.toml").write_text(f'engine = "{engine}"\nlora = ["{name}"]\n')
    order = shelf.only()

    assert order.recipe.engine == engine
    assert any("adapter" in step.title for step in order.recipe.steps)
    assert order.served is None
    assert () == order.spec.lora


def test_a_gguf_adapter_needs_no_build(shelf: Shelf) -> None:
    """`llama-cpp` applies it while it serves."""
    folder = write_gguf_folder(shelf.models, "m", manifest='lora = ["style.gguf"]\n')
    (folder / "style.gguf").write_bytes(gguf())
    found = shelf.scan()

    assert () == found.orders
    assert (PurePosixPath("style.gguf"),) == found.models[0].lora


def test_a_checkpoint_without_its_tokenizer_is_a_problem(shelf: Shelf) -> None:
    """What cannot be converted is said before anything is tried."""
    (checkpoint(shelf) / "tokenizer.json").unlink()

    assert "tokenizer" in shelf.problem()


def test_an_order_for_once(shelf: Shelf) -> None:
    """Another quantisation than the manifest's can be ordered; one that needs no build is refused, and a folder that is gone."""
    write_gguf_folder(shelf.models, "m", LARGE)
    scanner = shelf.scanner()

    assert Quantization.Q4_0 is scanner.order("m", Quantization.Q4_0).recipe.quantization
    for name, stored in (("m", "auto"), ("gone", Quantization.Q4_0)):
        with pytest.raises(ModelError):
            scanner.order(name, stored)  # type: ignore[arg-type]
    assert () == scanner.scan().orders


def test_auto_chooses_by_the_memory_of_the_manifest(shelf: Shelf) -> None:
    """`memory` of the manifest is the limit, not the budget."""
    write_gguf_folder(shelf.models, "m", LARGE, manifest='quantization = "auto"\nmemory = "1GiB"\n')
    shelf.budget_bytes = 8 * GIB
    fits: Any = shelf.scan()

    assert () == fits.orders


def _with_card(shelf: Shelf, room_bytes: int) -> None:
    """Give the box one card with so much room for models, and memory without end."""
    gpu = Gpu(index=0, name="card", sm="89", memory_bytes=room_bytes + 512 * MIB)
    shelf.device = Device(family=Family.DISCRETE, access=GpuAccess.RUNTIME, gpus=(gpu,), driver="580.1", cuda="13.0")


def test_auto_chooses_by_the_memory_of_the_card(shelf: Shelf) -> None:
    """Where a card holds the weights, its memory decides, however much the box has; what does not fit is not served."""
    write_gguf_folder(shelf.models, "m", LARGE, manifest='quantization = "auto"\n')
    _with_card(shelf, 8 * GIB)
    (whole,) = shelf.scan().models
    _with_card(shelf, whole.footprint.gpu_bytes)
    exact = shelf.scan()
    _with_card(shelf, whole.footprint.gpu_bytes - 1)
    order = shelf.only()

    assert () == exact.orders
    assert 512 * MIB < order.spec.footprint.gpu_bytes < whole.footprint.gpu_bytes
    assert "auto: " in order.reason
    assert order.served is None


def test_auto_chooses_by_what_the_manifest_allows_of_a_card(shelf: Shelf) -> None:
    """`gpu_memory` of the manifest is the limit, not the card; and where nothing fits, it is said."""
    folder = write_gguf_folder(shelf.models, "m", LARGE, manifest='quantization = "auto"\n')
    _with_card(shelf, 8 * GIB)
    (whole,) = shelf.scan().models
    for gpu_memory, orders in ((whole.footprint.gpu_bytes, 0), (whole.footprint.gpu_bytes - 1, 1)):
        (folder / "model.toml").write_text(f'quantization = "auto"\ngpu_memory = {gpu_memory}\n')
        assert orders == len(shelf.scan().orders)
    (folder / "model.toml").write_text('quantization = "auto"\ngpu_memory = "100MiB"\n')

    assert "auto found none that fits into 100 MiB" in shelf.problem()


EDGE = 'engine = "tensorrt-edge-llm"\ncontext = 512\n'


def _jetson(shelf: Shelf, manifest: str = EDGE) -> Path:
    """Put a checkpoint that chats onto a Jetson."""
    shelf.device = ORIN
    folder = write_checkpoint_folder(shelf.models, "m")
    (folder / "model.toml").write_text(manifest)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def _build_engine(shelf: Shelf, order: Order) -> EngineFile:
    """Do what the order of a TensorRT engine wants."""
    bundle = shelf.files.begin(order.fingerprint) / order.recipe.output
    bundle.mkdir()
    for name in ("llm.engine", "config.json"):
        (bundle / name).write_text("{}")
    return shelf.files.commit(order.key, order.recipe.output, model=order.model, seconds=1.0)


def test_an_engine_built_on_the_device_is_served_beside_its_source(shelf: Shelf) -> None:
    """Until it is built nothing is served; then the weights are the source's, and both count."""
    folder = _jetson(shelf)
    wanted = shelf.only()
    assert wanted.served is None
    built = _build_engine(shelf, wanted)
    order = shelf.only()

    assert order.served is not None
    assert (built.folder, PurePosixPath(folder)) == (order.served.folder, order.served.source)
    assert PurePosixPath(folder) == order.served.weights_folder
    assert (folder / "model.safetensors").stat().st_size + built.size_bytes == order.served.weights_bytes
    assert order.served.chat
    os.utime(folder / "model.safetensors", (1, 1))
    assert shelf.only().served is None, "other weights are another build"


def test_an_engine_of_another_image_does_not_stand_in(shelf: Shelf) -> None:
    """A TensorRT engine runs with the very package that built it: after an update nothing is served until it is built anew."""
    _jetson(shelf)
    _build_engine(shelf, shelf.only())
    assert shelf.only().served is not None
    shelf.image = "windlass/llama-cpp:2"

    assert shelf.only().served is None


def test_an_engine_is_built_for_one_shape(shelf: Shelf) -> None:
    """Another context, another number of callers, another option: another engine file."""
    manifests = [EDGE, EDGE.replace("512", "256"), f"{EDGE}parallel = 2\n", f"{EDGE}[options]\nmax_input_tokens = 64\n"]
    folder, fingerprints = _jetson(shelf), set()
    for manifest in manifests:
        (folder / "model.toml").write_text(manifest)
        fingerprints.add(shelf.only().fingerprint)

    assert len(manifests) == len(fingerprints)


def test_an_engine_for_a_jetson_is_refused_elsewhere(shelf: Shelf) -> None:
    """The folder is a problem with the engine's own sentence, and nothing is built."""
    _jetson(shelf)
    shelf.device = NO_GPU

    assert "it runs on a Jetson Orin or Thor with JetPack 7.2, and this box is none" in shelf.problem()
