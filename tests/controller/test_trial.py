"""Whether a container is charged for GPU memory: the program, what its end means, and that it is tried once."""

# ruff: noqa: ANN401 -- stages hold any JSON
import asyncio
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from controller.charging import Verdict, parse_stages
from controller.device import Device, Family, Gpu, GpuAccess
from controller.drivers.docker import DockerDriver
from controller.drivers.memory import MemoryDriver
from controller.ops.images import read_tags
from controller.probes.system import RecordedSystem
from controller.spec import JobSpec, Mount
from controller.state import Exit, ExitCause
from controller.store.database import open_database
from controller.store.findings import Findings
from controller.trial import BEYOND_BYTES, LIMIT_BYTES, NAME, PROGRAM, attempt, find_out_charging
from controller.units import MIB
from tests.controller.rig import OWNER, Machine

PROJECT = Path(__file__).resolve().parents[2]
SOURCE = PROJECT / "images" / "gpu-trial" / "trial.c"
STAND_IN = """
#include <stdlib.h>
#include <string.h>
typedef unsigned long long pointer;
static unsigned long long taken;
static unsigned long long number(const char *name) { const char *text = getenv(name); return text ? strtoull(text, 0, 10) : 0; }
int cuInit(unsigned flags) { return flags ? 1 : (int)number("INIT_FAILS"); }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { (void)device; strncpy(name, "Or\\"in", size); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) { (void)device; *value = which == 75 ? 8 : 7; return 0; }
int cuDeviceTotalMem_v2(size_t *total, int device) { (void)device; *total = 7619ULL << 20; return 0; }
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = &taken; return 0; }
int cuCtxSetCurrent(void *context) { return context == &taken ? 0 : 201; }
int cuMemAlloc_v2(pointer *memory, size_t size)
{
    if (number("MOST") && taken + size > number("MOST"))
        return 2;
    taken += size;
    *memory = number("CHARGED") ? (pointer)malloc(size) : 0;
    return 0;
}
int cuMemsetD8_v2(pointer memory, unsigned char value, size_t size)
{
    if (memory)
        memset((void *)memory, value, size);
    return 0;
}
int cuCtxSynchronize(void) { return 0; }
"""
"""A driver whose GPU memory is the process's own, or none at all."""
ORIN = Device(
    family=Family.ORIN,
    module="p3767-0005",
    l4t="39.2.0",
    gpus=(Gpu(index=0, name="Orin", sm="87"),),
    access=GpuAccess.RUNTIME,
    gpu_groups=(44,),
)
CARD = Device(family=Family.DISCRETE, gpus=(Gpu(index=0, name="card", sm="89", memory_bytes=MIB),), access=GpuAccess.CDI)
SYSTEM = RecordedSystem(files={"/proc/sys/kernel/osrelease": "6.8.12-1021-tegra\n"})
OOM = Exit(cause=ExitCause.OUT_OF_MEMORY, code=137)


def stages(*charged: int, last: Mapping[str, Any] | None = None) -> list[Mapping[str, Any]]:
    """Return what the program writes that takes 300 bytes a step and is charged so much by then."""
    steps = [{"stage": "taken", "taken_bytes": 300 * n, "charged_bytes": bytes_} for n, bytes_ in enumerate(charged)]
    if steps:
        steps[0]["stage"] = "context"
    return [{"stage": "device"}, *steps, *([last] if last else [])]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Compile the program and a stand-in for the driver."""
    (tmp_path / "driver.c").write_text(STAND_IN)
    strict = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*strict, "-o", tmp_path / "gpu-trial", SOURCE, "-ldl"], check=True)
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)  # a worker's user looks into it
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "driver.c"], check=True)
    return tmp_path


def trial(built: Path, size_bytes: object, **env: str) -> tuple[int, tuple[Mapping[str, Any], ...]]:
    """Run the program here, beside the stand-in."""
    environ = {"LD_LIBRARY_PATH": str(built), **env}
    argv = [built / "gpu-trial", str(size_bytes)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)
    return done.returncode, parse_stages(done.stdout)


def test_the_program_says_what_the_gpu_is_and_how_far_it_came(built: Path) -> None:
    """A line for each step of 64 MiB, and one at the end."""
    code, seen = trial(built, 100 * MIB)

    assert 0 == code
    assert {"stage": "device", "gpus": 1, "name": "Or in", "sm": "87", "total_bytes": 7619 * MIB, "cuda": 13020} == seen[0]
    assert ["context", "taken", "taken", "done"] == [stage["stage"] for stage in seen[1:]]
    assert [0, 64 * MIB, 128 * MIB, 128 * MIB] == [stage["taken_bytes"] for stage in seen[1:]]


def test_the_program_says_where_the_driver_refused(built: Path, tmp_path: Path) -> None:
    """Which call, which code, and what was taken by then; and that there is no driver."""
    refused, last = trial(built, 500 * MIB, MOST=str(150 * MIB))
    unable, first = trial(built, 500 * MIB, INIT_FAILS="100")
    (built / "libcuda.so.1").unlink()
    missing, none = trial(built, 500 * MIB)

    assert (3, {"stage": "failed", "call": "cuMemAlloc", "code": 2, "taken_bytes": 128 * MIB}) == (refused, last[-1])
    assert (3, "cuInit", 100) == (unable, first[-1]["call"], first[-1]["code"])
    assert (4, "dlopen") == (missing, none[-1]["call"])
    assert 2 == trial(built, "many")[0]


async def tried(machine: Machine, device: Device, findings: Findings, **changes: Any) -> bool | None:
    """Ask, with an engine in memory."""
    driver = MemoryDriver(OWNER, engine=machine)
    asked: dict[str, Any] = {
        "system": SYSTEM,
        "driver": driver,
        "engine": machine.info(),
        "images": ["plain", "cuda"],
        "findings": findings,
        "wall": lambda: 5.0,
        **changes,
    }
    return await find_out_charging(device, **asked)


async def answered(machine: Machine, *, ends: Mapping[str, Exit], says: Sequence[Mapping[str, Any]] = ()) -> list[JobSpec]:
    """End trials as the image they run in would, as long as the test goes on; return what was begun."""
    begun: list[JobSpec] = []

    async def answer() -> None:
        while True:
            for bench in machine.benches(OWNER):
                if bench.shown.running:
                    begun.append(bench.spec)
                    bench.lines.extend(json.dumps(stage) for stage in says)
                    end = ends.get(bench.spec.image, Exit(cause=ExitCause.CRASHED, code=127))
                    machine.job_ended(OWNER, NAME, code=end.code, cause=end.cause)
            await asyncio.sleep(0.1)

    machine.answering = asyncio.create_task(answer())  # type: ignore[attr-defined]
    return begun


@pytest.mark.looptime
async def test_it_is_tried_once_and_remembered(machine: Machine, tmp_path: Path) -> None:
    """In the image that has the program, sealed and small, and not again; another kernel is another question."""
    machine.runtimes = ("nvidia", "runc")
    findings = Findings(open_database(tmp_path / "state.db"))
    begun = await answered(machine, ends={"cuda": OOM}, says=stages(100, 400))
    first = await tried(machine, ORIN, findings)
    again = await tried(machine, ORIN, findings)
    other = await tried(machine, ORIN, findings, system=RecordedSystem())

    assert (True, True, True) == (first, again, other)
    assert ["plain", "cuda", "plain", "cuda"] == [spec.image for spec in begun]
    assert ((PROGRAM, str(LIMIT_BYTES + BEYOND_BYTES)), LIMIT_BYTES, ("nvidia=all",), (44,)) == (
        begun[1].argv,
        begun[1].memory_bytes,
        begun[1].devices,
        begun[1].groups,
    )
    assert () == tuple(machine.benches(OWNER)), "what was tried is cleared away"


@pytest.mark.looptime
async def test_what_does_not_show_is_tried_again(machine: Machine, tmp_path: Path) -> None:
    """No image has the program, the engine is away, it hangs: nothing is known, and nothing is remembered."""
    machine.runtimes = ("nvidia", "runc")
    findings = Findings(open_database(tmp_path / "state.db"))
    begun = await answered(machine, ends={})
    first = await tried(machine, ORIN, findings)
    machine.images = frozenset()
    absent = await tried(machine, ORIN, findings)
    machine.images = None
    machine.answering.cancel()  # type: ignore[attr-defined]
    hung = await tried(machine, ORIN, findings)

    assert (None, None, None) == (first, absent, hung)
    assert 2 == len(begun)
    assert () == tuple(machine.benches(OWNER))


async def test_where_there_is_nothing_to_try_nothing_is_tried(machine: Machine, tmp_path: Path) -> None:
    """A card's memory is in no limit; without limits, without a way to the GPU, or without a GPU there is no question."""
    findings = Findings(open_database(tmp_path / "state.db"))
    unlimited = replace(machine.info(), memory_limits=False)

    assert await tried(machine, CARD, findings) is False
    assert await tried(machine, Device(), findings) is None
    assert await tried(machine, replace(ORIN, access=GpuAccess.NONE), findings) is None
    assert await tried(machine, ORIN, findings, engine=unlimited) is None
    assert () == tuple(machine.benches(OWNER))


@pytest.mark.looptime
async def test_it_is_put_off_while_memory_is_short(machine: Machine, tmp_path: Path) -> None:
    """What would end it then might be the box's limit, or end somebody else; with enough it is tried."""
    machine.runtimes = ("nvidia", "runc")
    findings = Findings(open_database(tmp_path / "state.db"))
    begun = await answered(machine, ends={"plain": OOM}, says=stages(100))
    short, enough = [
        await tried(machine, ORIN, findings, system=RecordedSystem(files={"/proc/meminfo": f"MemAvailable: {kibibytes} kB\n"}))
        for kibibytes in (3 * 1024 * 1024 - 1, 3 * 1024 * 1024)
    ]

    assert (None, True) == (short, enough)
    assert 1 == len(begun)


class WithMounts(DockerDriver):
    """The real driver, with the program and the stand-in mounted into a plain image."""

    def __init__(self, owner: str, built: Path, env: Mapping[str, str]) -> None:
        super().__init__(owner)
        self._built = built
        self._more = {"LD_LIBRARY_PATH": "/trial", **env}

    async def begin_job(self, spec: JobSpec) -> None:
        """Begin the same job, with what an image for GPUs would have inside."""
        mounts = (Mount(source=PurePosixPath(self._built), target=PurePosixPath("/trial"), read_only=True),)
        argv = ("/trial/gpu-trial", *spec.argv[1:])
        await super().begin_job(replace(spec, mounts=mounts, argv=argv, env=self._more, devices=()))


@pytest.mark.engine
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("env", "charged"),
    [
        ({"CHARGED": "1"}, True),
        ({}, False),
        ({"CHARGED": "1", "MOST": str(200 * MIB)}, True),
        ({"MOST": str(200 * MIB)}, None),
        ({"INIT_FAILS": "100"}, None),
    ],
)
async def test_the_real_kernel_decides(owner: str, built: Path, env: Mapping[str, str], charged: bool | None) -> None:
    """A driver whose memory is the container's own meets the limit, or the charge shows; any other does not."""
    image = read_tags(PROJECT / "build" / "images.env")["WINDLASS_IMAGE_CONTROLLER"]
    driver = WithMounts(owner, built, env)
    try:
        verdict: Verdict = await attempt(driver, replace(ORIN, gpu_groups=()), image, limit_bytes=256 * MIB)
        left = await driver.jobs()
    finally:
        await driver.close()

    assert charged is verdict.charged, verdict.why
    assert () == tuple(left)
