"""What `windlass check` finds, from facts alone."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from controller.config import GatewaySettings, MemorySettings, Settings
from controller.drivers.base import EngineInfo
from controller.ops import survey
from controller.ops.check import update
from controller.ops.check.network import is_loopback, split_listen
from controller.ops.check.place import worker_socket
from controller.ops.check.rules import findings
from controller.ops.check.values import Access, EngineFacts, Facts, Finding, Port, Severity, Update
from controller.probes.host import DiskKind, DiskReading
from controller.probes.memory import MemoryReading
from controller.spec import ApiPath, Footprint, FootprintSource, ModelName, ModelSpec
from controller.units import GIB, MIB

ENGINE = EngineInfo(
    version="20.10.24",
    cgroup_version=2,
    memory_limits=True,
    swap_limits=True,
    runtimes=("runc",),
    storage_driver="overlay2",
    architecture="x86_64",
)
MEMORY = MemoryReading(
    total_bytes=8 * GIB,
    available_bytes=6 * GIB,
    swap_total_bytes=0,
    zram_bytes=0,
    pressure_some_avg10=0.0,
    pressure_full_avg10=0.0,
)
GOOD = Facts(
    config_problems=(),
    settings=Settings(),
    memory=MEMORY,
    home=Access.WRITABLE,
    run=Access.WRITABLE,
    disk=DiskReading(total_bytes=100 * GIB, free_bytes=50 * GIB, kind=DiskKind.NVME),
    engine=EngineFacts(info=ENGINE, missing_images=()),
    port=Port.FREE,
    key_count=None,
    models=(),
    folder_problems=(),
)


def model(name: str = "mini", *, total_bytes: int = GIB, pinned: bool = False) -> ModelSpec:
    """Make a model of a size."""
    return ModelSpec(
        name=ModelName(name),
        engine="llama-cpp",
        folder=PurePosixPath("/var/lib/windlass/models") / name,
        weights=PurePosixPath("weights.gguf"),
        weights_bytes=total_bytes,
        digest="d",
        context_tokens=2048,
        parallel=1,
        footprint=Footprint(total_bytes=total_bytes, weights_bytes=0, private_bytes=0, source=FootprintSource.ESTIMATE),
        load_s=1.0,
        api_paths=frozenset({ApiPath.CHAT}),
        pinned=pinned,
    )


def engine(**changes: object) -> EngineFacts:
    """Make an engine that says something else of itself."""
    return EngineFacts(info=replace(ENGINE, **changes), missing_images=())  # type: ignore[arg-type]


def listening(listen: str) -> Settings:
    """Make settings with an address."""
    return Settings(gateway=GatewaySettings(listen=listen))


def budget(count_bytes: int | None, *, reserve: int = GIB) -> Settings:
    """Make settings with a budget."""
    return Settings(memory=MemorySettings(budget=count_bytes, reserve=reserve))


def disk(free_bytes: int = 50 * GIB, kind: DiskKind = DiskKind.NVME) -> DiskReading:
    """Make a disk."""
    return DiskReading(total_bytes=100 * GIB, free_bytes=free_bytes, kind=kind)


EVERYWHERE = "0.0.0.0"  # noqa: S104 - nobody listens here, it is only looked at
LONG_RUN = PurePosixPath("/srv") / ("r" * 60)

GOLDEN: dict[str, tuple[dict[str, object], list[tuple[str, str, str]]]] = {
    "configuration": (
        {"config_problems": ("home: no", "run: neither")},
        [("error", "configuration", "home: no"), ("error", "configuration", "run: neither")],
    ),
    "no engine": (
        {"engine": EngineFacts(problem="connection refused")},
        [("error", "engine", "does not answer: connection refused")],
    ),
    "old engine": (
        {"engine": engine(version="19.03.8")},
        [("error", "engine", "wanted Docker Engine 20.10 or newer, got 19.03.8")],
    ),
    "newer engine": ({"engine": engine(version="28.2.2")}, []),
    "engine of no version": ({"engine": engine(version="dev")}, []),
    "no memory limits": (
        {"engine": engine(memory_limits=False, swap_limits=False)},
        [("error", "memory limits", "does not enforce memory limits")],
    ),
    "no swap limits": ({"engine": engine(swap_limits=False, cgroup_version=1)}, [("warning", "swap limits", "cgroup v1")]),
    "slow storage": ({"engine": engine(storage_driver="vfs")}, [("warning", "engine", "vfs copies a whole image")]),
    "no image": (
        {"engine": EngineFacts(info=ENGINE, missing_images=(("llama-cpp", "windlass/llama-cpp:local"),))},
        [("error", "image", "windlass/llama-cpp:local is not there")],
    ),
    "images unknown": ({"engine": EngineFacts(info=ENGINE)}, []),
    "read-only home": ({"home": Access.READ_ONLY}, [("error", "home", "/var/lib/windlass is on a read-only file system")]),
    "a file in place of run": ({"run": Access.NOT_A_FOLDER}, [("error", "run", "/run/windlass is not a folder")]),
    "forbidden home": ({"home": Access.FORBIDDEN}, [("warning", "home", "you may not write to /var/lib/windlass")]),
    "full disk": ({"disk": disk(free_bytes=100 * MIB)}, [("error", "disk", "100 MiB are free")]),
    "nearly full disk": ({"disk": disk(free_bytes=GIB)}, [("warning", "disk", "1 GiB are free")]),
    "rotating disk": ({"disk": disk(kind=DiskKind.ROTATING)}, [("warning", "disk", "a disk that turns")]),
    "card": ({"disk": disk(kind=DiskKind.SD_CARD)}, [("warning", "disk", "on an SD card")]),
    "eMMC": ({"disk": disk(kind=DiskKind.EMMC)}, [("warning", "disk", "on eMMC")]),
    "virtual disk": ({"disk": disk(kind=DiskKind.VIRTUAL)}, []),
    "path too long for names": (
        {"settings": Settings(run=LONG_RUN)},
        [("warning", "run", "model names may have 21 characters instead of 63")],
    ),
    "path too long for any name": (
        {"settings": Settings(run=PurePosixPath("/" + "r" * 200))},
        [("warning", "run", "model names may have 0 characters")],
    ),
    "path too long for a model": (
        {"settings": Settings(run=LONG_RUN), "models": (model("m" * 22), model("n" * 21))},
        [("error", "run", "m" * 22 + " cannot be served: a socket path may have 107 bytes")],
    ),
    "nothing left": ({"settings": budget(None, reserve=9 * GIB)}, [("error", "budget", "nothing is left for models")]),
    "budget beyond the box": (
        {"settings": budget(9 * GIB)},
        [("error", "budget", "the budget of 9 GiB is more than the box has, 8 GiB")],
    ),
    "tight budget": ({"settings": budget(8 * GIB - MIB)}, [("warning", "budget", "leaves 1 MiB")]),
    "generous reserve": ({"settings": budget(8 * GIB - 512 * MIB)}, []),
    "too much pinned": (
        {"models": (model("a", total_bytes=4 * GIB, pinned=True), model("b", total_bytes=4 * GIB, pinned=True))},
        [("error", "budget", "the pinned models need 8 GiB together, and the budget is 7 GiB")],
    ),
    "zram": (
        {"memory": replace(MEMORY, swap_total_bytes=4 * GIB, zram_bytes=4 * GIB)},
        [("warning", "zram", "4 GiB of compressed swap")],
    ),
    "little zram": ({"memory": replace(MEMORY, swap_total_bytes=GIB, zram_bytes=GIB)}, []),
    "swap on a card": (
        {"memory": replace(MEMORY, swap_total_bytes=GIB), "disk": disk(kind=DiskKind.SD_CARD)},
        [("warning", "disk", "SD card"), ("warning", "swap", "1 GiB of swap are on a slow disk")],
    ),
    "swap on NVMe": ({"memory": replace(MEMORY, swap_total_bytes=GIB)}, []),
    "no address": ({"settings": listening("8000")}, [("error", "listen", "wanted an address such as 127.0.0.1:8000")]),
    "somebody else's port": ({"port": Port.TAKEN}, [("error", "port", "somebody else listens on 127.0.0.1:8000")]),
    "our port": ({"port": Port.OURS}, []),
    "another host's address": (
        {"settings": listening("192.0.2.1:8000"), "port": Port.NO_ADDRESS, "key_count": 1},
        [("error", "listen", "does not have the address 192.0.2.1")],
    ),
    "root's port": (
        {"settings": listening("127.0.0.1:80"), "port": Port.FORBIDDEN},
        [("error", "port", "a port below 1024 is for root")],
    ),
    "open without a key": (
        {"settings": listening("0.0.0.0:8000"), "key_count": 0},
        [("error", "keys", "refuses to listen on 0.0.0.0:8000 without an API key")],
    ),
    "open with a key": ({"settings": listening("0.0.0.0:8000"), "key_count": 1}, []),
    "open, keys unknown": ({"settings": listening("[::]:8000")}, [("warning", "keys", "nobody could tell")]),
    "loopback without a key": ({"key_count": 0}, []),
    "an update that did not stay": (
        {"update": Update(at="2026-11-01T10:00:00Z", result="failed", version="2", text="not healthy within 600 s")},
        [("warning", "update", "the update to 2 did not stay (2026-11-01T10:00:00Z): not healthy within 600 s")],
    ),
    "an update that nobody could read": (
        {"update": Update(at="2026-11-01T10:00:00Z", result="refused", version="", text="wrong signature")},
        [("warning", "update", "an update was refused (2026-11-01T10:00:00Z): wrong signature")],
    ),
    "an update that stayed": ({"update": Update(at="2026-11-01T10:00:00Z", result="confirmed", version="2", text="")}, []),
    "a folder": (
        {"folder_problems": (("Bad", "wanted another name"),)},
        [("error", "model folder", "Bad: wanted another name")],
    ),
    "a model too large": (
        {"models": (model("huge", total_bytes=9 * GIB),)},
        [("warning", "model", "huge needs 9 GiB (estimate) and can never fit into the budget of 7 GiB")],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), GOLDEN.values(), ids=GOLDEN.keys())
def test_each_fact_has_its_finding(changes: dict[str, object], expected: list[tuple[str, str, str]]) -> None:
    """One bad fact, one finding: how bad, about what, in which words, and always with what to do."""
    found = findings(replace(GOOD, **changes))  # type: ignore[arg-type]

    assert [(finding.severity.value, finding.subject) for finding in found] == [(how, what) for how, what, _ in expected]
    for finding, (_, _, text) in zip(found, expected, strict=True):
        assert text in finding.text
        assert finding.fix


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"at": "now"}', "null"])
def test_what_is_no_word_of_the_box_is_no_update(text: str) -> None:
    """A file that a power cut or a person has spoilt says nothing."""
    assert update.read(text) is None


def test_a_good_box_has_no_findings() -> None:
    """Nothing is said for the sake of saying something."""
    assert findings(GOOD) == ()


def test_every_problem_is_found_at_once_and_errors_come_first() -> None:
    """All facts bad together are as many findings as they are apart."""
    bad = replace(
        GOOD,
        config_problems=("no",),
        settings=Settings(gateway=GatewaySettings(listen="0.0.0.0:1"), memory=MemorySettings(budget=99 * GIB)),
        home=Access.FORBIDDEN,
        run=Access.READ_ONLY,
        disk=disk(free_bytes=1, kind=DiskKind.SD_CARD),
        engine=EngineFacts(problem="away"),
        port=Port.FORBIDDEN,
        key_count=0,
        folder_problems=(("Bad", "no"),),
    )
    severities = [finding.severity for finding in findings(bad)]

    assert severities == [Severity.ERROR] * 8 + [Severity.WARNING] * 2


def test_a_finding_is_json_for_programs() -> None:
    """Four texts, under names that stay."""
    finding = Finding(severity=Severity.ERROR, subject="disk", text="full", fix="rm")

    assert finding.as_json() == {"severity": "error", "subject": "disk", "text": "full", "fix": "rm", "remedy": None}


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("localhost:1", ("localhost", 1)),
        ("[::1]:8000", ("::1", 8000)),
        (":8000", (EVERYWHERE, 8000)),
        ("8000", None),
        ("::1:8000", None),
        ("127.0.0.1:0", None),
        ("127.0.0.1:65536", None),
        ("a b:80", None),
        ("", None),
    ],
)
def test_an_address_is_taken_apart(listen: str, address: tuple[str, int] | None) -> None:
    """Host and port, or nothing."""
    assert split_listen(listen) == address


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), (EVERYWHERE, False), ("box", False)],
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    """Only what nobody else can reach."""
    assert is_loopback(host) is loopback


def test_the_default_place_has_room_for_the_longest_name() -> None:
    """No model of a good name is ever refused for its socket there."""
    assert len(str(worker_socket(Settings().run, "m" * 63))) <= 107


# The thin part that looks.


@pytest.fixture
def taken() -> Iterator[str]:
    """Give an address that somebody has and does not answer at."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{other.getsockname()[1]}"


def test_a_folder_of_ours_or_one_to_be_made_is_writable(tmp_path: Path) -> None:
    """What does not exist yet is judged by where it will be made."""
    assert survey.read_access(PurePosixPath(tmp_path)) is Access.WRITABLE
    assert survey.read_access(PurePosixPath(tmp_path / "a" / "b")) is Access.WRITABLE


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """Neither is what would have to be below it."""
    (tmp_path / "file").touch()

    assert survey.read_access(PurePosixPath(tmp_path / "file")) is Access.NOT_A_FOLDER
    assert survey.read_access(PurePosixPath(tmp_path / "file" / "below")) is Access.NOT_A_FOLDER


def test_nobody_writes_to_proc() -> None:
    """The kernel's own file system is no place for a home, whoever asks."""
    assert survey.read_access(PurePosixPath("/proc/1")) is not Access.NOT_A_FOLDER


def test_a_free_port_and_a_foreign_address_are_told_apart() -> None:
    """Listening for a moment shows which it is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]

    assert survey.read_port(f"127.0.0.1:{free}") is Port.FREE
    assert survey.read_port("192.0.2.1:8000") is Port.NO_ADDRESS
    assert survey.read_port("nonsense") is Port.FREE


def test_a_port_that_somebody_else_has_is_taken(taken: str) -> None:
    """Who listens and does not answer as a gateway does is somebody else."""
    assert survey.read_port(taken) is Port.TAKEN


def test_an_image_is_looked_for_at_the_engines_socket(tmp_path: Path) -> None:
    """Without a socket nobody can say."""
    assert survey.find_missing_images({"llama-cpp": "x"}, PurePosixPath(tmp_path / "none.sock")) is None
    assert survey.find_missing_images({}, PurePosixPath(tmp_path / "none.sock")) == ()


def test_a_survey_of_an_empty_place_has_every_fact(tmp_path: Path) -> None:
    """No engine, no controller, no models: facts all the same, and no exception."""
    environ = {
        "WINDLASS_HOME": str(tmp_path / "home"),
        "WINDLASS_RUN": str(tmp_path / "run"),
        "WINDLASS_LISTEN": "nonsense",
        "DOCKER_HOST": f"unix://{tmp_path}/none.sock",
    }
    facts = survey.survey(environ, config=None)

    assert (facts.home, facts.run, facts.models, facts.folder_problems) == (Access.WRITABLE, Access.WRITABLE, (), ())
    assert (facts.engine.info, facts.key_count) == (None, None)
    assert facts.engine.problem


def test_a_survey_keeps_going_when_the_configuration_is_wrong(tmp_path: Path) -> None:
    """Its problems are facts, and everything else is looked at with the defaults."""
    file = tmp_path / "appliance.toml"
    file.write_text("colour = 1\n[engines.nonesuch]\nthreads = 1\n", encoding="utf-8")
    facts = survey.survey({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}, config=file)

    assert any("colour" in problem for problem in facts.config_problems)
    assert facts.settings == Settings()


def test_a_survey_reads_the_models_folder(tmp_path: Path) -> None:
    """A folder that cannot be served is a fact with its reason."""
    (tmp_path / "models" / "Bad Name").mkdir(parents=True)
    environ = {"WINDLASS_HOME": str(tmp_path), "WINDLASS_RUN": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    facts = survey.survey(environ, config=None)

    assert [folder for folder, _ in facts.folder_problems] == ["Bad Name"]
