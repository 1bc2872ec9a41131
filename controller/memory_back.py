"""
The wait for the memory of a worker that has ended: the engine's word that it has is not enough.

A GPU's driver takes its time, and may keep what nobody holds any more: that is waited for longer, and is reported at last.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from controller.gpu_watch import POLL_S, GpuWatch, Held
from controller.probes.memory import Supply
from controller.spec import ModelName
from controller.units import MIB, format_bytes

log: Final = structlog.get_logger()

LIMIT_S: Final = 0.1
"""How long memory is waited for, if others take memory in the same moment."""
GPU_LIMIT_S: Final = 3.0
"""And memory of a GPU, whose driver gives it back in its own time."""
GPU_STILL_S: Final = 0.25
"""So long no more of it comes, and the release of a GPU's memory is over."""
BACK_SHARE: Final = 0.9
LOST_SHARE: Final = 0.5
"""Less of a worker's memory than this has come back: somebody should know."""
STILL_BYTES: Final = MIB
MEMORY_POLL_S: Final = 0.005
CARD_POLL_S: Final = 0.2


class MemoryBack:
    """
    Waits, and remembers what did not come back.

    Attributes:
        stuck: a sentence about what is missing, by the model whose worker held it.

    """

    def __init__(self, *, read: Callable[[], Supply], gpus: GpuWatch, clock: Callable[[], float]) -> None:
        """Know whom to ask."""
        self.stuck: dict[ModelName, str] = {}
        self._read = read
        self._gpus = gpus
        self._clock = clock

    def available_bytes(self) -> int:
        """Return what there is to be had of the box's memory."""
        return self._read().available_bytes

    async def wait(
        self, model: ModelName, *, before_bytes: int, private_bytes: int, on_gpu: bool = False, held: Held | None = None
    ) -> int:
        """
        Wait until there is as much more to be had as a worker held, and say how much it is.

        Args:
            model: whose worker has ended.
            before_bytes: what there was to be had before.
            private_bytes: what it held of that, as far as anyone knows.
            on_gpu: it computed on a GPU.
            held: what it was seen to hold there, and by which processes.

        """
        shares = on_gpu and self._gpus.device.unified
        returned_bytes = await self._await_ram(
            before_bytes, private_bytes, limit_s=GPU_LIMIT_S if shares else LIMIT_S, still_s=GPU_STILL_S if shares else 0.0
        )
        is_back = returned_bytes >= LOST_SHARE * private_bytes
        if held is not None and not (shares and is_back):
            left_bytes = await self._await_gpu(held)
            self._note(model, left_bytes, missing_bytes=0 if is_back or not shares else private_bytes - returned_bytes)
        else:
            self.stuck.pop(model, None)
        return returned_bytes

    async def _await_ram(self, before_bytes: int, held_bytes: int, *, limit_s: float, still_s: float) -> int:
        """
        Wait for the box's memory.

        Others may take memory in the same moment, so it is enough as well that no more of it comes: a release goes on without
        a pause once it has begun, and the engine's word means that it has.
        """
        deadline_s, last_bytes, grew_s = self._clock() + limit_s, before_bytes, self._clock()
        while True:
            now_bytes, now = self._read().available_bytes, self._clock()
            if now_bytes - before_bytes >= BACK_SHARE * held_bytes or now >= deadline_s:
                return now_bytes - before_bytes
            if now_bytes - last_bytes >= STILL_BYTES:
                grew_s = now
            elif last_bytes > before_bytes and now - grew_s >= still_s:
                return now_bytes - before_bytes
            last_bytes = now_bytes
            await asyncio.sleep(MEMORY_POLL_S)

    async def _await_gpu(self, held: Held) -> int:
        """Wait until the driver lists nothing any more for processes that have ended; return what it still lists."""
        deadline_s = self._clock() + GPU_LIMIT_S
        while True:
            reading = await self._gpus.read()
            left_bytes = sum(reading.of(held.pids).values()) if reading else 0
            if left_bytes == 0 or self._clock() >= deadline_s:
                return left_bytes
            await asyncio.sleep(POLL_S if self._gpus.device.unified else CARD_POLL_S)

    def _note(self, model: ModelName, left_bytes: int, *, missing_bytes: int) -> None:
        if not left_bytes and not missing_bytes:
            self.stuck.pop(model, None)
            return
        log.warning("memory.stuck", model=model, left_bytes=left_bytes, missing_bytes=missing_bytes)
        if left_bytes:
            what = f"the driver of the GPU still keeps {format_bytes(left_bytes)} for it; a restart of the box gives it back"
        else:
            what = (
                f"{format_bytes(missing_bytes)} of its memory did not come back; others may have taken it, or the driver keeps it"
            )
        self.stuck[model] = f"the worker of {model} has ended, and {what}"
