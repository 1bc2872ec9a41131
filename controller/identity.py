"""
What the box is, for as long as this controller lives.

It is found out once, before anything depends on it: which models can run, what a measurement holds for, for what engine files are
built. When it changes, because a driver was updated or the container engine learnt a way to the GPU, this life ends and the next
one begins with it: workers are adopted, and no answer is cut.
"""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from controller.device import Device, GpuAccess
from controller.drivers.base import Driver, EngineInfo
from controller.errors import DeviceChangedError, EngineError
from controller.probes import jetson
from controller.probes.device import read_device
from controller.probes.system import System
from controller.store.findings import Findings
from controller.trial import find_out_charging

log: Final = structlog.get_logger()

LOOK_S: Final = 30.0
"""How often it is looked whether anything has changed: two files and a question to the engine."""
_SIGNS: Final = (jetson.RELEASE_FILE, "/proc/driver/nvidia/version")
"""Files that change with the driver."""


class Identity:
    """
    The box this controller was started on.

    Attributes:
        device: what it is.

    """

    def __init__(
        self,
        system: System,
        driver: Driver,
        device: Device,
        *,
        engine: EngineInfo | None,
        signs: Hashable,
        look_s: float,
        use_gpu: bool,
    ) -> None:
        """Use `find_out`."""
        self._engine = engine
        self.device = device
        self._system = system
        self._driver = driver
        self._signs = signs
        self._look_s = look_s
        self._use_gpu = use_gpu

    async def try_charging(self, *, images: Sequence[str], findings: Findings, wall: Callable[[], float]) -> None:
        """Learn whether a container's limit covers GPU memory, from an earlier trial or by one in one of *images*."""
        if self._engine is not None:
            charged = await find_out_charging(
                self.device,
                system=self._system,
                driver=self._driver,
                engine=self._engine,
                images=images,
                findings=findings,
                wall=wall,
            )
            self.device = replace(self.device, gpu_memory_charged=charged)

    async def watch(self) -> None:
        """
        Look now and then whether the box is still what it was.

        Raises:
            DeviceChangedError: it is not, and whoever depends on it must begin anew.

        """
        while True:
            await asyncio.sleep(self._look_s)
            engine = await _ask(self._driver)
            if engine is None:  # nothing is known of its ways while it is away
                continue
            signs = await asyncio.to_thread(_read_signs, self._system, engine)
            if signs == self._signs:
                continue
            found = await _look(self._system, engine, use_gpu=self._use_gpu)
            self._signs = signs
            now = replace(found, gpu_memory_charged=self.device.gpu_memory_charged)
            if now != self.device:
                log.warning("device.changed", before=self.device.fingerprint, after=now.fingerprint, access=now.access.value)
                raise DeviceChangedError(
                    f"the box was {_describe(self.device)} when the controller started and is {_describe(now)} now: "
                    "a driver or the container engine was changed; the controller starts anew"
                )


def _describe(device: Device) -> str:
    return f"{device.fingerprint} ({device.access.value})"


async def _look(system: System, engine: EngineInfo | None, *, use_gpu: bool) -> Device:
    """Read what the box is; where its GPU is not to be used it is there, and no worker reaches it."""
    found = await asyncio.to_thread(read_device, system, engine)
    return found if use_gpu else replace(found, access=GpuAccess.NONE)


async def find_out(system: System, driver: Driver, *, look_s: float = LOOK_S, use_gpu: bool = True) -> Identity:
    """Look at the box; an engine that is away makes no difference but that nothing reaches the GPU."""
    engine = await _ask(driver)
    device = await _look(system, engine, use_gpu=use_gpu)
    signs = await asyncio.to_thread(_read_signs, system, engine)
    log.info(
        "device.known",
        fingerprint=device.fingerprint,
        board=device.board,
        l4t=device.l4t,
        gpus=[gpu.name for gpu in device.gpus],
        access=device.access.value,
    )
    return Identity(system, driver, device, engine=engine, signs=signs, look_s=look_s, use_gpu=use_gpu)


async def _ask(driver: Driver) -> EngineInfo | None:
    try:
        return await driver.info()
    except EngineError as exc:
        log.warning("device.engine_away", error=str(exc))
        return None


def _read_signs(system: System, engine: EngineInfo | None) -> Hashable:
    ways = (engine.runtimes, engine.cdi_folders, engine.cdi_devices) if engine else None
    return (ways, *(system.read(path) for path in _SIGNS))
