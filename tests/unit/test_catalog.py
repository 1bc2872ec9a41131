"""The models folder: what is served, what is a problem, and what is not looked at again."""

import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from controller.config import EngineSettings, Settings
from controller.engines.base import Site
from controller.errors import ConfigError
from controller.host import Host
from controller.spec import ApiPath, FootprintSource, ModelName, ModelSpec, Tier
from controller.store import folder as folder_module
from controller.store.catalog import QUIET_S, Catalog, Problem, Scanner
from controller.store.database import open_database
from controller.store.ledger import Ledger, LedgerKey
from tests.checkpoints import KEYS, gguf, safetensors, write_checkpoint_folder, write_gguf_folder

LATER_S = 3600.0


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return the models folder of an empty home."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def scanner(
    models: Path, ledger: Ledger | None = None, *, now: Callable[[], float] | None = None, **engines: EngineSettings
) -> Scanner:
    """Return a scanner that looks an hour later, when all files are long at rest."""
    settings = Settings(home=PurePosixPath(models.parent), engines=engines)
    return Scanner(settings, ledger, now=now or (lambda: time.time() + LATER_S))


def scan(models: Path) -> Catalog:
    """Look once."""
    return scanner(models).scan()


def only(models: Path) -> ModelSpec:
    """Return the one model there is."""
    found = scan(models)

    assert () == found.problems
    (model,) = found.models
    return model


def problem(models: Path) -> Problem:
    """Return the one problem there is, where nothing is served."""
    found = scan(models)

    assert () == found.models
    (row,) = found.problems
    return row


def test_folder_with_a_gguf_is_a_model(models: Path) -> None:
    """A GGUF alone says all that is needed."""
    folder = write_gguf_folder(models, "qwen")
    model = only(models)

    assert ("qwen", "llama-cpp", PurePosixPath(folder), PurePosixPath("model.gguf")) == (
        model.name,
        model.engine,
        model.folder,
        model.weights,
    )
    assert (len(gguf()), 1024, 1, Tier.MEDIUM, True, True) == (
        model.weights_bytes,
        model.context_tokens,
        model.parallel,
        model.tier,
        model.chat,
        model.tools,
    )
    assert FootprintSource.ESTIMATE is model.footprint.source
    assert model.load_s == pytest.approx(0.7, abs=0.001)


def test_folder_with_a_checkpoint_is_a_model(models: Path) -> None:
    """A safetensors checkpoint goes to the engine that reads it, and the engine is given the folder."""
    write_checkpoint_folder(models, "bert")
    model = only(models)

    assert ("transformers", PurePosixPath(), len(safetensors())) == (model.engine, model.weights, model.weights_bytes)


def test_tools_are_offered_only_where_the_engine_takes_them(models: Path) -> None:
    """A template that speaks of tools does not help an engine that refuses them."""
    folder = write_checkpoint_folder(models, "m")
    (folder / "chat_template.jinja").write_text("{{ tools }}")

    assert (True, False) == (only(models).chat, only(models).tools)


def test_manifest_decides(models: Path) -> None:
    """What the manifest says is what is served."""
    write_gguf_folder(
        models,
        "qwen",
        manifest=(
            'tier = "small"\ntags = ["code"]\ncontext = 512\nparallel = 3\npinned = true\npriority = 7\nmemory = "100MiB"\n'
            'load_seconds = 4.5\ntools = false\ndescription = "Codes."\n'
        ),
    )
    model = only(models)

    assert (Tier.SMALL, frozenset({"code"}), 512, 3, True, 7, 4.5, False, "Codes.") == (
        model.tier,
        model.tags,
        model.context_tokens,
        model.parallel,
        model.pinned,
        model.priority,
        model.load_s,
        model.tools,
        model.description,
    )
    assert (100 * 1024 * 1024, FootprintSource.OVERRIDE) == (model.footprint.total_bytes, model.footprint.source)


def test_long_contexts_are_not_taken_without_being_asked_for(models: Path) -> None:
    """A model trained for much more gets 4096 tokens by default, since its context is memory."""
    write_gguf_folder(models, "qwen", gguf(more={"qwen2.context_length": 131_072}))

    assert 4096 == only(models).context_tokens


def test_adapters_are_part_of_the_model(models: Path) -> None:
    """An adapter named by the manifest is given to the engine and counted."""
    folder = write_gguf_folder(models, "qwen", manifest='lora = ["style.gguf"]')
    before = len(gguf())
    (folder / "style.gguf").write_bytes(gguf(more={"general.type": "adapter"}))
    model = only(models)

    assert (PurePosixPath("style.gguf"),) == model.lora
    assert model.weights_bytes > before


def test_digest_changes_with_the_weights(models: Path) -> None:
    """Another time or another header is another model; a manifest is not."""
    folder = write_gguf_folder(models, "qwen")
    first = only(models).digest
    (folder / "model.toml").write_text("priority = 1")
    same = only(models).digest
    os.utime(folder / "model.gguf", (1, 1))
    touched = only(models).digest

    assert first == same
    assert first != touched


def test_ledger_replaces_what_was_assumed(models: Path, tmp_path: Path) -> None:
    """Memory and load time that were measured are what the model is planned with."""
    write_gguf_folder(models, "qwen")
    database = open_database(tmp_path / "state.db")
    ledger = Ledger(database)
    key = LedgerKey.of(only(models), image="windlass/llama-cpp:local", device="cpu")
    ledger.saw_load(key, load_s=9.0)
    ledger.saw_memory(key, anon_bytes=2**30, mapped_bytes=2**30)
    (model,) = scanner(models, ledger).scan().models
    database.close()

    assert (9.0, FootprintSource.MEASURED) == (model.load_s, model.footprint.source)
    assert model.footprint.private_bytes > 2**30


PROBLEMS = {
    "no weights": (lambda folder: (folder / "model.gguf").unlink(), "got none"),
    "cut weights": (lambda folder: (folder / "model.gguf").write_bytes(gguf()[:-1]), "is incomplete"),
    "lying weights": (lambda folder: (folder / "model.gguf").write_bytes(gguf(counts=(2**40, 1))), "more than can be"),
    "two formats": (lambda folder: (folder / "model.safetensors").write_bytes(safetensors()), "wanted one format"),
    "unknown key": (lambda folder: (folder / "model.toml").write_text("contxt = 3"), "unknown key 'contxt'"),
    "unknown engine": (lambda folder: (folder / "model.toml").write_text("engine = 'vllm'"), "tensorrt-llm-jetson, got 'vllm'"),
    "wrong engine": (lambda folder: (folder / "model.toml").write_text("engine = 'transformers'"), "wanted a .safetensors file"),
    "named for another engine": (
        lambda folder: (folder / "model.toml").write_text("engine = 'transformers'\nfile = 'model.gguf'"),
        "reads safetensors, got gguf",
    ),
    "no adapter": (lambda folder: (folder / "model.toml").write_text("lora = ['x.gguf']"), "wanted a .gguf file"),
    "too long a context": (lambda folder: (folder / "model.toml").write_text("context = 2048"), "at most the 1024 tokens"),
    "closed file": (lambda folder: (folder / "model.gguf").chmod(0o600), "cannot be read by the worker"),
    "closed folder": (lambda folder: folder.chmod(0o700), "the folder cannot be read by the worker"),
    "link out": (lambda folder: (folder / "other.gguf").symlink_to("/etc/passwd"), "is a link out of the folder"),
    "broken link": (lambda folder: (folder / "other.gguf").symlink_to("nowhere.gguf"), "is a link out of the folder"),
    "a comma": (lambda folder: (folder / "model.gguf").rename(folder / "a,b.gguf"), "no file of a model needs"),
    "a newline": (lambda folder: (folder / "model.gguf").rename(folder / "a\nb.gguf"), r"a\nb.gguf has characters"),
    "a pipe": (lambda folder: ((folder / "model.gguf").unlink(), os.mkfifo(folder / "model.gguf")), "wanted a file"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "said"), PROBLEMS.values(), ids=list(PROBLEMS))
def test_folder_that_cannot_be_served_is_a_problem(models: Path, spoil: Callable[[Path], object], said: str) -> None:
    """Each way in which a folder can be wrong is a row with its sentence, and the model beside it is served."""
    spoil(write_gguf_folder(models, "bad"))
    write_gguf_folder(models, "good")
    found = scan(models)

    assert ["good"] == [model.name for model in found.models]
    assert ["bad"] == [row.folder for row in found.problems]
    assert said in found.problems[0].text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Über", "Über"),
        ("a b", "a b"),
        ("-a", "-a"),
        ("x" * 64, "x" * 64),
        ("a\nb", r"a\nb"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        (os.fsdecode(b"a\xffb"), r"a\xffb"),
        ("UPPER", "UPPER"),
        ("auto", "auto"),
    ],
)
def test_folder_with_another_kind_of_name_is_a_problem(models: Path, name: str, shown: str) -> None:
    """Names are for URLs, containers and terminals; any other is shown in one harmless line."""
    write_gguf_folder(models, name)
    found = problem(models)

    assert shown == found.folder
    assert "rename the folder" in found.text


def test_two_folders_with_one_name_are_told(models: Path) -> None:
    """Of two names that differ in the size of letters alone, the one in small letters is served."""
    write_gguf_folder(models, "Qwen")
    write_gguf_folder(models, "qwen")
    found = scan(models)

    assert ["qwen"] == [model.name for model in found.models]
    assert [Problem(folder="Qwen", text="has the name of 'qwen' in other letters; rename one of them")] == list(found.problems)


def test_folder_that_is_a_link_is_a_problem(models: Path, tmp_path: Path) -> None:
    """A link would show the worker what is not in the models folder."""
    outside = write_gguf_folder(tmp_path, "outside")
    (models / "linked").symlink_to(outside)

    assert "is a link" in problem(models).text


def test_link_to_a_file_of_the_same_folder_is_followed(models: Path) -> None:
    """A link within the folder leads the worker where it leads us."""
    folder = write_gguf_folder(models, "qwen", manifest="file = 'latest.gguf'")
    (folder / "latest.gguf").symlink_to("model.gguf")

    assert PurePosixPath("latest.gguf") == only(models).weights


def test_weights_beside_the_folders_are_a_problem(models: Path) -> None:
    """A file dropped into the wrong place is told, and other files there are nobody's business."""
    (models / "loose.gguf").write_bytes(gguf())
    (models / "README").touch()
    (models / ".copying").mkdir()
    (models / "lost+found").mkdir()

    assert ("loose.gguf", True) == (problem(models).folder, "make a folder" in problem(models).text)


def test_missing_models_folder_is_a_problem(tmp_path: Path) -> None:
    """Without the folder nothing is served, and nothing fails."""
    assert "make the folder" in problem(tmp_path / "models").text


def test_readable_for_the_workers_group_is_enough(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that only the shared group may read can be served."""
    folder = write_gguf_folder(models, "qwen")
    for path in (folder, folder / "model.gguf"):
        path.chmod(0o750)
    monkeypatch.setattr(folder_module, "GROUP_GID", folder.stat().st_gid)

    assert "qwen" == only(models).name


def test_files_being_written_are_waited_for(models: Path) -> None:
    """Weights that have just changed are not registered before they have been left alone, however complete they look."""
    write_gguf_folder(models, "qwen")
    times = [time.time()]
    looking = scanner(models, now=lambda: times[0])
    early = looking.scan()
    times[0] += QUIET_S + 1
    late = looking.scan()

    assert ((), QUIET_S) == (early.models, early.again_s)
    assert "still being written" in early.problems[0].text
    assert (1, None) == (len(late.models), late.again_s)


def test_model_is_served_on_while_its_manifest_is_edited(models: Path) -> None:
    """A manifest being written does not take its model away; what it says counts when it is at rest."""
    folder = write_gguf_folder(models, "qwen")
    times = [time.time() + LATER_S]
    looking = scanner(models, now=lambda: times[0])
    looking.scan()
    (folder / "model.toml").write_text("priority = 1")
    os.utime(folder / "model.toml", (times[0], times[0]))
    during = looking.scan()
    times[0] += QUIET_S + 1
    after = looking.scan()

    assert ([0], QUIET_S) == ([model.priority for model in during.models], during.again_s)
    assert ([1], None) == ([model.priority for model in after.models], after.again_s)


def test_model_is_not_served_on_while_its_weights_are_replaced(models: Path) -> None:
    """Weights that change under a model take it away until they are at rest."""
    folder = write_gguf_folder(models, "qwen")
    now = time.time() + LATER_S
    looking = scanner(models, now=lambda: now)
    looking.scan()
    (folder / "model.gguf").write_bytes(gguf()[:500])
    os.utime(folder / "model.gguf", (now, now))

    assert () == looking.scan().models


def test_time_in_the_future_is_no_reason_to_wait(models: Path) -> None:
    """Files from a box whose clock is ahead, or from before the clock was set back, are served."""
    write_gguf_folder(models, "qwen")

    assert 1 == len(scanner(models, now=lambda: time.time() - LATER_S).scan().models)


def test_unchanged_folders_are_not_read_again(models: Path) -> None:
    """A second look costs no reading, and sees what was removed."""
    folder = write_gguf_folder(models, "qwen")
    write_gguf_folder(models, "other")
    looking = scanner(models)
    first = looking.scan()
    raw = bytearray((folder / "model.gguf").read_bytes())
    raw[:4] = b"XXXX"
    status = (folder / "model.gguf").stat()
    (folder / "model.gguf").write_bytes(raw)
    os.utime(folder / "model.gguf", ns=(status.st_atime_ns, status.st_mtime_ns))
    second = looking.scan()
    (models / "other/model.gguf").unlink()
    (models / "other").rmdir()

    assert first == second
    assert ["qwen"] == [model.name for model in looking.scan().models]


def test_options_reach_the_estimate(models: Path) -> None:
    """What `[engines]` sets is part of the footprint."""
    write_gguf_folder(models, "qwen")
    (plain,) = scanner(models).scan().models
    (repacked,) = scanner(models, **{"llama-cpp": EngineSettings(options={"repack": True})}).scan().models

    assert repacked.footprint.total_bytes > plain.footprint.total_bytes


def test_wrong_engine_settings_are_all_named() -> None:
    """An engine or an option that there is not keeps the controller from starting, with its key."""
    settings = Settings(
        engines={"vllm": EngineSettings(), "llama-cpp": EngineSettings(options={"x": 1, "ubatch_size": "many"})},
    )

    with pytest.raises(ConfigError) as caught:
        Scanner(settings)

    assert ["engines.vllm", "engines.llama-cpp.options.x", "engines.llama-cpp.options.ubatch_size"] == [
        text.split(": ")[0] for text in caught.value.problems
    ]


def test_embedding_model_is_asked_for_nothing_else(models: Path) -> None:
    """What a worker can be asked follows from its header."""
    write_gguf_folder(models, "embed", gguf(more={"qwen2.pooling_type": 3}))

    assert frozenset({ApiPath.EMBEDDINGS}) == only(models).api_paths


def test_model_without_a_known_context_gets_the_default(models: Path) -> None:
    """A header that names no longest context does not make a context of nothing."""
    write_gguf_folder(models, "qwen", gguf({**KEYS, "qwen2.context_length": 0}))

    assert 4096 == only(models).context_tokens


def test_a_model_has_options_of_its_own(models: Path) -> None:
    """They go before the engine's, decide the estimate and the worker, and are part of what a measurement holds for."""
    for name, text in {"plain": "", "own": "[options]\nrepack = true\nubatch_size = 64\n"}.items():
        write_gguf_folder(models, name, manifest=text)
    engine = EngineSettings(image="image", options={"ubatch_size": 256, "kv_type": "q8_0"})
    found = {model.name: model for model in scanner(models, **{"llama-cpp": engine}).scan().models}
    plain, own = (found[ModelName(name)] for name in ("plain", "own"))
    site = Site(image="image", run_root=PurePosixPath("/r"), kv_root=PurePosixPath("/k"), threads=1, options=engine.options)
    host = Host(sites={"llama-cpp": site})

    assert (("repack", True), ("ubatch_size", 64)) == own.options
    assert {"--no-repack", "256", "q8_0"} <= {*host.worker(plain).argv}
    assert {"--repack", "64", "q8_0"} <= {*host.worker(own).argv}
    assert own.footprint.private_bytes < plain.footprint.private_bytes, (
        "smaller buffers; so small a model repacks next to nothing"
    )
    assert host.ledger_key(own).options != host.ledger_key(plain).options
    assert host.kv_fingerprint(own) != host.kv_fingerprint(plain)


@pytest.mark.parametrize(("text", "why"), [("ubatch = 1", "no such option"), ("repack = 7", "repack")])
def test_options_an_engine_does_not_take_are_a_problem(models: Path, text: str, why: str) -> None:
    """The folder is not served, and the reason names the option."""
    write_gguf_folder(models, "own", manifest=f"[options]\n{text}\n")

    assert why in problem(models).text
