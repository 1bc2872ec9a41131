"""
Whether the right board hangs on the USB cable, in recovery mode.

NVIDIA's devices are told by their vendor id; which product ids mean recovery is the same list that NVIDIA's tools have.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.errors import WindlassError
from controller.ops.flash.boards import Board

VENDOR: Final = "0955"
IN_RECOVERY: Final = frozenset({"7023", "7223", "7323", "7423", "7523", "7623", "7026", "7226", "7326"})
RUNNING: Final = frozenset({"7020", "7035", "7100"})
"""A board that runs: its own Linux, or the small one that NVIDIA's tool flashes with."""
USB: Final = Path("/sys/bus/usb/devices")


class NotInRecoveryError(WindlassError):
    """The board to flash is not there, not in recovery mode, or another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbDevice:
    """One device on the bus: where, and what it says it is."""

    path: str
    product: str
    name: str = ""


def read_devices(folder: Path = USB) -> tuple[UsbDevice, ...]:
    """Return NVIDIA's devices on the bus, which for most hosts are Jetsons."""
    found = []
    for one in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _read(one / "idVendor") == VENDOR:
            found.append(UsbDevice(path=one.name, product=_read(one / "idProduct"), name=_read(one / "product")))
    return tuple(found)


def find_board(board: Board, devices: Iterable[UsbDevice], boards: Mapping[str, Board]) -> UsbDevice:
    """
    Return the one device that is *board* in recovery mode.

    Raises:
        NotInRecoveryError: with a sentence that says what is there instead and what to do.

    """
    there = tuple(devices)
    waiting = [one for one in there if one.product in IN_RECOVERY]
    if not there:
        raise NotInRecoveryError(
            f"no Jetson is connected: wanted {board.title} (USB {_ids(board)}) on the board's USB-C port. "
            "Take a cable that carries data, plug it into this machine and not into a hub, and put the board into recovery mode"
        )
    if not waiting:
        seen = ", ".join(f"{VENDOR}:{one.product} at {one.path}" for one in there)
        state = "runs" if any(one.product in RUNNING for one in there) else "is connected"
        raise NotInRecoveryError(
            f"a Jetson {state} ({seen}) but is not in recovery mode, in which {board.title} shows USB {_ids(board)}. "
            "Cut its power, connect its pins FC REC and GND (a developer kit for AGX has a button), and give it power again"
        )
    if len(waiting) > 1:
        places = ", ".join(f"{VENDOR}:{one.product} at {one.path}" for one in waiting)
        raise NotInRecoveryError(f"{len(waiting)} boards are in recovery mode ({places}); leave only the one to flash connected")
    (only,) = waiting
    if only.product not in board.usb:
        owners = [one for one in boards.values() if only.product in one.usb]
        what = " or ".join(one.title for one in owners) or "a board that is not known here"
        hint = f"; flash it with {' or '.join(f'BOARD={one.name}' for one in owners)}" if owners else ""
        raise NotInRecoveryError(
            f"wanted {board.title} (USB {_ids(board)}), but {VENDOR}:{only.product} at {only.path} is {what}{hint}"
        )
    return only


def _ids(board: Board) -> str:
    return " or ".join(f"{VENDOR}:{one}" for one in board.usb)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
