"""The README is true: its tables name what there is, all of it and nothing else, and what it points at exists."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from controller import spec
from controller.cli import app as command_line
from controller.config import EngineSettings, Settings
from controller.engines import llama_cpp, tensorrt_edge_llm, tensorrt_llm, tensorrt_llm_jetson, transformers
from controller.gateway.app import EXPOSED_HEADERS, PATHS
from controller.gateway.box import Told
from controller.gateway.metrics import Metrics
from controller.gateway.problems import SHAPES
from controller.store.manifest import Manifest
from controller.units import parse_bytes

PROJECT: Final = Path(__file__).parents[2]
TEXT: Final = (PROJECT / "README.md").read_text(encoding="utf-8")
EXAMPLE: Final = PROJECT / "appliance" / "appliance.toml"
OPTIONS: Final = {
    "llama-cpp": llama_cpp.OPTIONS,
    "transformers": transformers.OPTIONS,
    "tensorrt-edge-llm": tensorrt_edge_llm.OPTIONS,
    "tensorrt-llm": tensorrt_llm.OPTIONS,
    "tensorrt-llm-jetson": tensorrt_llm_jetson.OPTIONS,
}

NO_DEFAULT: Final = {"none", "by the files", "the only one", "at most 4096", "by its chat template"}
"""What the tables say where the code has `None`: nothing, or something found out from the model itself."""

MADE: Final = {"build", "dist"}
"""Folders that are made and not kept."""

Row = tuple[str, ...]


def prose() -> str:
    """Return the README without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```$", "", TEXT)


def rows(heading: str, *, first: str) -> list[Row]:
    """Return the rows of the table that stands below *heading* and whose first column is headed *first*."""
    section = re.search(rf"(?ms)^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", prose())
    assert section, f"the README has no heading {heading!r}"
    found: list[Row] = []
    for table in re.findall(r"(?m)(?:^\|.*\|\n)+", section[1]):
        head, _, *body = [columns(line) for line in table.splitlines()]
        if head[0] == first:
            found += body
    assert found, f"the README has no table of {first} below {heading!r}"
    return found


def columns(line: str) -> Row:
    """Take a row of a table apart."""
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def code(cell: str) -> list[str]:
    """Return what is set as code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def names(heading: str, *, first: str) -> set[str]:
    """Return what the first column of a table sets as code."""
    listed = [name for row in rows(heading, first=first) for name in code(row[0])]

    assert len(set(listed)) == len(listed), f"the table below {heading!r} says something twice"
    return set(listed)


def written(cell: str) -> object:
    """Read a default as TOML; `None` where the cell says in words that there is none."""
    return None if cell in NO_DEFAULT else tomllib.loads(f"value = {code(cell)[0]}")["value"]


def settable(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every key of the configuration with its default; `*` stands for the name of an engine."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if name == "engines":
            yield from settable(EngineSettings, f"{prefix}engines.*.")
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settable(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, plain(field.get_default(call_default_factory=True))


def plain(value: object) -> object:
    """Return a default as TOML would hold it."""
    if value is PydanticUndefined:
        return None
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, dict | bool | int | float | None) else str(value)


def same(shown: object, real: object) -> bool:
    """Compare a default of the README with the code's; a size may be written as text."""
    if isinstance(shown, str) and isinstance(real, int):
        return parse_bytes(shown) == real
    return shown == real


def verbs() -> Iterator[str]:
    """Yield every verb of the command line, those of groups with the group's name before them."""
    top = typer.main.get_command(command_line)
    for name, command in getattr(top, "commands").items():  # noqa: B009 -- typer does not say that this is a group
        inner = getattr(command, "commands", None)
        yield from (f"{name} {one}" for one in inner) if inner else (name,)


def metric_names() -> Iterator[str]:
    """Yield the names under which Prometheus finds what the gateway counts and what the controller tells."""
    told: Mapping[str, Any] = {
        "memory": {"total_bytes": 1, "pressure_some_avg10": 0.0, "pressure_full_avg10": 0.0},
        "guard": {"level": "calm", "stopped": 0, "ended": 0},
        "disk": {"home_total_bytes": 1},
        "thermal": {"zones": [{"name": "cpu", "celsius": 40.0}]},
        "power": {"rails": [{"name": "in", "watts": 5.0}]},
        "pace": {"factor": 0.5},
        "workers": [{"model": "m", "status": "ready", "memory_bytes": 1, "leases": 0}],
        "queue": [],
        "state": "ok",
    }
    families: list[Metric] = list(text_string_to_metric_families((Metrics().text() + Told(told).text()).decode()))
    for family in families:
        if not family.name.endswith("_created"):
            yield f"{family.name}_total" if family.type == "counter" else family.name


def sources() -> Iterator[Path]:
    """Yield the files in which an environment variable may be read or set, tests aside."""
    yield PROJECT / "Makefile"
    for folder in ("controller", "images", "compose", "bench"):
        for path in (PROJECT / folder).rglob("*"):
            if path.is_file() and path.suffix in {"", ".py", ".sh", ".yaml"} and not path.name.startswith("."):
                yield path


def test_paths() -> None:
    """Every path of the gateway is in the table, with the scope its key needs."""
    shown = {code(row[0])[0]: row[1] for row in rows("Paths", first="path")}

    assert {f"{path.method} {path.path}": path.need.value.replace("nothing", "none") for path in PATHS} == shown


def test_headers() -> None:
    """Every header that an answer may carry is in the table."""
    shown = {name for row in rows("Which model answers", first="header") if row[1] != "request" for name in code(row[0])}

    assert set(EXPOSED_HEADERS) == shown


def test_errors() -> None:
    """Every kind of error is in the table, at its status."""
    shown = {name: int(row[0]) for row in rows("Errors", first="status") for name in code(row[1])}

    assert {shape.code: shape.status for shape in SHAPES.values()} == shown


def test_commands() -> None:
    """Every verb of the command line is in the table."""
    shown = {re.sub(r" [A-Z].*", "", name).removeprefix("windlass ") for name in names("The command line", first="command")}

    assert set(verbs()) == shown


def test_make_targets() -> None:
    """Every target of the Makefile is in the table."""
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"(?m)^\.PHONY: (.*)$", makefile)

    assert phony
    assert {f"make {target}" for target in phony[1].split()} == {
        name for row in rows("Run it", first="command") for name in code(row[0])
    }


def test_configuration() -> None:
    """Every key of the configuration is in the table, with its default."""
    shown = {code(row[0])[0]: written(row[1]) for row in rows("Configure it", first="key")}
    real = dict(settable(Settings))

    assert set(real) == set(shown)
    assert [] == [key for key, default in real.items() if not same(shown[key], default)]


def test_example_configuration() -> None:
    """The example shows the same defaults as the table, wherever it shows one rather than an example."""
    example = tomllib.loads(re.sub(r"(?m)^#(?=\w+ = )", "", EXAMPLE.read_text(encoding="utf-8")))
    example["engines"] = {"*": example["engines"]["llama-cpp"]}
    for depends_on_the_box in ("budget", "floor"):
        example["memory"].pop(depends_on_the_box)
    example["gpu"].pop("budget")
    example["builds"].pop("disk_budget")
    example["builds"].pop("memory")
    example["engines"]["*"].pop("image")
    shown = {code(row[0])[0]: written(row[1]) for row in rows("Configure it", first="key")}

    def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
        for name, value in table.items():
            if isinstance(value, dict) and name != "options":
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    assert [] == [key for key, value in flat(example) if shown[key] != value]


def test_engine_options() -> None:
    """Every option of every engine is in the table, with its default."""
    shown = {(code(row[0])[0], code(row[1])[0]): written(row[2]) for row in rows("Engine options", first="engine")}

    assert {(engine, name): option.default for engine, known in OPTIONS.items() for name, option in known.items()} == shown


def test_manifest() -> None:
    """Every key of `model.toml` is in the table, with its default."""
    shown = {code(row[0])[0]: written(row[1]) for row in rows("model.toml", first="key")}
    real = {name: plain(field.get_default()) for name, field in Manifest.model_fields.items()}

    assert real == shown


def test_environment() -> None:
    """Every variable that the code reads or sets is in the table."""
    found = {name for path in sources() for name in re.findall(r"\bWINDLASS_[A-Z_]*[A-Z]\b", path.read_text("utf-8", "ignore"))}
    real = {"WINDLASS_IMAGE_<NAME>" if name.startswith("WINDLASS_IMAGE") else name for name in found}

    assert real == names("Environment", first="variable")


def test_labels() -> None:
    """Every label of a worker's container is in the table."""
    labels = {value for name, value in vars(spec).items() if name.startswith("LABEL_")}

    assert labels == names("Operate it", first="label")


def test_metrics() -> None:
    """Every metric is in the table."""
    assert set(metric_names()) == names("Metrics", first="metric")


def test_links() -> None:
    """What a link points at exists."""
    targets = [target for target in re.findall(r"\]\(([^)#]+)", TEXT) if "://" not in target]

    assert targets
    assert [] == [target for target in targets if not (PROJECT / target).exists()]


def test_files() -> None:
    """A path of the repository that is named exists."""
    tops = {path.name for path in PROJECT.iterdir()} - {"build", ".venv"}
    named = [name for name in re.findall(r"`([\w./*-]+/[\w./*-]*)`", prose()) if name.split("/")[0] in tops]

    assert named
    assert [] == [name for name in named if not list(PROJECT.glob(name.rstrip("/")))]


def test_layout() -> None:
    """Every folder a newcomer sees at the top, in the package and among the tests has its place in the table."""
    places = (PROJECT, PROJECT / "controller", PROJECT / "tests")
    folders = [one for place in places for one in place.iterdir() if one.is_dir() and one.name[0] not in "._"]
    cells = " ".join(cell for row in rows("Where everything lives", first="path") for cell in row)
    named = {name.rstrip("/") for name in [*code(cells), *re.findall(r"\]\(([^)]+)\)", cells)]}

    assert [] == [folder.name for folder in folders if f"{folder.relative_to(PROJECT)}" not in named and folder.name not in MADE]


def test_addresses() -> None:
    """Nothing in it leads to another machine: neither a URL nor the name of a host."""
    hosts = set(re.findall(r"https?://([^:/\s\"'`)]+)", TEXT))

    assert {"127.0.0.1"} == hosts
    assert [] == re.findall(r"\b[\w-]+\.(?:org|com|net|io|dev)\b", TEXT)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?<![\w.<>~:/}-])/(?:[\w.-]+/)+[\w.-]+", prose()))))
def test_absolute_paths(path: str) -> None:
    """An absolute path is one of an installation, or one of the API."""
    served = [re.sub(r"\{\w+\}.*", "", one.path) for one in PATHS]

    assert path.startswith(("/etc/windlass/", "/var/lib/windlass", "/run/", "/srv/", *(one for one in served if one != "/")))
