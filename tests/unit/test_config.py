"""The configuration: read whole, refused whole, documented whole."""

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from pydantic import BaseModel

from controller import config
from controller.config import EngineSettings, Settings, load_settings
from controller.errors import ConfigError
from controller.units import GIB, MIB

EXAMPLE = Path(__file__).parents[2] / "appliance" / "appliance.toml"


def keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every key that can be set, by its full name; `*` stands for the name of an engine."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if name == "engines":
            yield from keys(EngineSettings, f"{prefix}engines.*.")
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def written(text: str, tmp_path: Path) -> Path:
    """Write a configuration file."""
    path = tmp_path / "appliance.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(text: str, tmp_path: Path) -> tuple[str, ...]:
    """Return what is wrong with a configuration file, without the path."""
    path = written(text, tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_settings({}, path=path)
    return tuple(problem.removeprefix(f"{path}: ") for problem in caught.value.problems)


def test_the_example_shows_every_key_and_nothing_else() -> None:
    """The commented example is the reference: a key that is missing there, or only there, fails."""
    shown = tomllib.loads(re.sub(r"(?m)^#(?=\w+ = )", "", EXAMPLE.read_text(encoding="utf-8")))
    shown["engines"] = {"*": shown["engines"]["llama-cpp"]}

    def flat(table: dict[str, object], prefix: str = "") -> Iterator[str]:
        for name, value in table.items():
            if isinstance(value, dict) and name != "options":
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    assert set(flat(shown)) == set(keys(Settings))


def test_the_example_shows_the_defaults() -> None:
    """What stands behind each # is what holds without it; budgets, floor and the memory of builds have none."""
    text = re.sub(r"(?m)^#(?=\w+ = )", "", EXAMPLE.read_text(encoding="utf-8"))
    shown = Settings.model_validate(tomllib.loads(text))
    memory = shown.memory.model_copy(update={"budget": None, "floor": None})
    builds = shown.builds.model_copy(update={"disk_budget": None, "memory": None})
    gpu = shown.gpu.model_copy(update={"budget": None})

    assert shown.model_copy(update={"memory": memory, "gpu": gpu, "builds": builds, "engines": {}}) == Settings()
    assert shown.engine("llama-cpp") == Settings().engine("llama-cpp")


def test_the_example_as_it_is_changes_nothing() -> None:
    """Everything in it is commented out."""
    assert load_settings({}, path=EXAMPLE).model_copy(update={"engines": {}}) == Settings()


def test_every_key_has_its_sentence_in_the_code() -> None:
    """A key without a docstring behind it is not finished."""
    tree = ast.parse(inspect.getsource(config))
    missing = []
    for section in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for key, after in zip(section.body, [*section.body[1:], None], strict=True):
            if not isinstance(key, ast.AnnAssign) or not isinstance(key.target, ast.Name):
                continue
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
            is_section = isinstance(key.annotation, ast.Name) and key.annotation.id.endswith("Settings")
            if not told and not is_section and key.target.id != "engines":
                missing.append(f"{section.name}.{key.target.id}")

    assert missing == []


def test_without_a_file_the_defaults_hold() -> None:
    """Nothing has to be configured."""
    if not config.DEFAULT_PATH.exists():
        assert load_settings({}) == Settings()


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    """A typo in a path is not the same as no configuration."""
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match="no such file"):
        load_settings({}, path=missing)
    with pytest.raises(ConfigError, match="no such file"):
        load_settings({"WINDLASS_CONFIG": str(missing)})


def test_a_file_is_found_by_the_environment(tmp_path: Path) -> None:
    """WINDLASS_CONFIG names it, and an empty value names nothing."""
    path = written('owner = "mine"', tmp_path)

    assert load_settings({"WINDLASS_CONFIG": str(path)}).owner == "mine"
    assert load_settings({"WINDLASS_CONFIG": str(path)}, path=written('owner = "yours"', tmp_path)).owner == "yours"


def test_sizes_are_read_in_any_unit(tmp_path: Path) -> None:
    """Text and plain numbers of bytes."""
    settings = load_settings({}, path=written('[memory]\nbudget = "7.4GiB"\nreserve = 1048576\n', tmp_path))

    assert (settings.memory.budget, settings.memory.reserve) == (round(7.4 * GIB), MIB)


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    """Each with its key; nobody corrects one line to be told of the next."""
    found = problems(
        'home = "relative"\nowner = "UPPER"\nfoo = 1\n[memory]\nbudget = "much"\n[gateway]\nmax_body = -1\n'
        "[scheduler]\nmin_residency_s = 20\n[engines.x]\nthreads = -1\nbar = 2\n",
        tmp_path,
    )

    assert sorted(problem.split(":")[0] for problem in found) == [
        "engines.x.bar",
        "engines.x.threads",
        "foo",
        "gateway.max_body",
        "home",
        "memory.budget",
        "owner",
        "scheduler",
    ]


@pytest.mark.parametrize("text", ["= 1", "home = \n", "[memory\n", "a = 1\na = 2\n"])
def test_what_is_no_toml_is_a_problem_with_its_place(text: str, tmp_path: Path) -> None:
    """The parser's line and column are kept."""
    assert "line" in problems(text, tmp_path)[0]


def test_bytes_that_are_no_text_are_a_problem(tmp_path: Path) -> None:
    """A file of another kind is told, not a traceback."""
    path = tmp_path / "appliance.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="utf-8"):
        load_settings({}, path=path)
    with pytest.raises(ConfigError, match="directory"):
        load_settings({}, path=tmp_path)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """Each variable overrides its key, and an empty one overrides nothing."""
    path = written('home = "/a"\nowner = "mine"\n[engines.llama-cpp]\nthreads = 3\n', tmp_path)
    settings = load_settings(
        {
            "WINDLASS_HOME": "/b",
            "WINDLASS_RUN": "/r",
            "WINDLASS_OWNER": "",
            "WINDLASS_MEMORY_BUDGET": "2GiB",
            "WINDLASS_LISTEN": "0.0.0.0:80",
            "WINDLASS_IMAGE_LLAMA_CPP": "windlass/llama-cpp:abc",
            "WINDLASS_IMAGE_TRANSFORMERS": "",
        },
        path=path,
    )

    assert (settings.home, settings.run, settings.owner) == (PurePosixPath("/b"), PurePosixPath("/r"), "mine")
    assert (settings.memory.budget, settings.gateway.listen) == (2 * GIB, "0.0.0.0:80")
    assert (settings.engine("llama-cpp").image, settings.engine("llama-cpp").threads) == ("windlass/llama-cpp:abc", 3)
    assert settings.engine("transformers").image == "windlass/transformers:local"


def test_a_table_that_is_no_table_is_told_by_the_validation(tmp_path: Path) -> None:
    """An override cannot be put into a number, and the number is what is wrong."""
    path = written("memory = 7\n", tmp_path)
    with pytest.raises(ConfigError, match=r"memory: .*MemorySettings"):
        load_settings({"WINDLASS_MEMORY_BUDGET": "1GiB"}, path=path)


def test_a_budget_from_the_environment_that_is_no_size_is_told_with_its_key() -> None:
    """The problem names the key that the variable sets."""
    with pytest.raises(ConfigError, match=r"memory\.budget: .*wanted a size"):
        load_settings({"WINDLASS_MEMORY_BUDGET": "lots"}, path=EXAMPLE)
