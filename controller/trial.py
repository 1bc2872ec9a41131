"""
Whether a container's memory limit covers what it takes on a GPU that shares the box's memory: tried once, and remembered.

It depends on the kernel's driver, and no file says it. A program in a sealed container with a small limit takes GPU memory beyond
it, and how that ends is the answer. On a card there is nothing to try: its memory is in no limit.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from controller.charging import Verdict, judge, parse_stages
from controller.device import Device
from controller.drivers.base import Driver, EngineInfo, Job
from controller.errors import EngineError
from controller.probes.system import System
from controller.spec import JobSpec
from controller.store.findings import Findings
from controller.units import GIB, KIB, MIB

log: Final = structlog.get_logger()

PROGRAM: Final = "/usr/local/bin/gpu-trial"
"""In the images for GPUs; `images/gpu-trial` is its source."""
NAME: Final = "gpu-trial"
LIMIT_BYTES: Final = 1 * GIB
"""Of the container: enough for CUDA itself, whose own memory may be covered as well, and not too much for a small board."""
BEYOND_BYTES: Final = 256 * MIB
SPARE_BYTES: Final = 3 * GIB
"""With less memory available it is put off: what would end it then might be the box's limit, or end somebody else."""
PATIENCE_S: Final = 60.0
POLL_S: Final = 0.25
_AVAILABLE: Final = re.compile(r"^MemAvailable:\s+(\d+) kB", re.MULTILINE)


async def find_out_charging(
    device: Device,
    *,
    system: System,
    driver: Driver,
    engine: EngineInfo,
    images: Sequence[str],
    findings: Findings,
    wall: Callable[[], float],
) -> bool | None:
    """
    Return whether a container's limit covers GPU memory here, by trying it if nobody has.

    *images* are tried in turn until one has the program. What does not show is not remembered, and tried again by the next life.
    """
    if not device.unified:
        return False if device.gpus else None
    if not device.has_gpu or not engine.memory_limits:
        return None
    kernel = (system.read("/proc/sys/kernel/osrelease") or "").strip()
    key = f"gpu_memory_charged {device.fingerprint} {kernel} cgroup{engine.cgroup_version}"
    known = await asyncio.to_thread(findings.get, key)
    if known is not None:
        return bool(known.value)
    available = _AVAILABLE.search(system.read("/proc/meminfo") or "")
    if available and int(available[1]) * KIB < SPARE_BYTES:
        log.info("gpu_trial.put_off", available_bytes=int(available[1]) * KIB, wanted_bytes=SPARE_BYTES)
        return None
    for image in images:
        try:
            verdict = await attempt(driver, device, image)
        except EngineError as exc:  # an image without the program, or without a GPU's libraries, or one that is not there
            log.info("gpu_trial.not_here", image=image, error=str(exc))
            continue
        log.info("gpu_trial.done", charged=verdict.charged, why=verdict.why, image=image)
        if verdict.charged is not None:
            await asyncio.to_thread(findings.put, key, verdict.charged, at_s=wall())
            return verdict.charged
    return None


async def attempt(driver: Driver, device: Device, image: str, *, limit_bytes: int = LIMIT_BYTES) -> Verdict:
    """
    Try it in one image, and clear it away whatever happens.

    Raises:
        EngineError: the container cannot be made or started.

    """
    spec = JobSpec(
        build=NAME,
        step=0,
        image=image,
        argv=(PROGRAM, str(limit_bytes + BEYOND_BYTES)),
        mounts=(),
        memory_bytes=limit_bytes,
        devices=device.requests(),
        groups=device.gpu_groups,
    )
    await driver.end_job(NAME)
    try:
        await driver.begin_job(spec)
        job = await _ended(driver)
        if job is None or job.exit is None:
            return Verdict(charged=None, why=f"it had not ended after {PATIENCE_S:.0f} s")
        return judge(parse_stages(await driver.job_logs(NAME, tail=100)), job.exit, limit_bytes=limit_bytes)
    finally:
        await asyncio.shield(driver.end_job(NAME))


async def _ended(driver: Driver) -> Job | None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                job = next((job for job in await driver.jobs() if job.build == NAME), None)
                if job is None or not job.running:
                    return job
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return None
