"""The monitor of a machine: the buttons and plugs of its case, by QEMU's own protocol."""

import json
import socket
from pathlib import Path
from typing import Any, Final

_WITHIN_S: Final = 60.0


class Monitor:
    """One connection to a monitor."""

    def __init__(self, path: Path) -> None:
        """Connect, and agree on what is understood."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_WITHIN_S)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self._lines.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 -- whatever this command returns
        """Give a command and return its result; `_` in the names of arguments stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while True:
            answer = json.loads(self._lines.readline())
            assert "error" not in answer, f"{command} {named}: {answer}"
            if "return" in answer:  # and not an event
                return answer["return"]

    def plug(self, name: str, path: Path, *, format: str = "raw") -> None:  # noqa: A002 -- QEMU's own word
        """Plug a USB stick in."""
        self("blockdev-add", node_name=name, driver=format, file={"driver": "file", "filename": str(path)})
        self("device_add", id=f"{name}-plug", driver="usb-storage", bus="usb.0", drive=name)

    def pull(self, name: str) -> None:
        """Pull a USB stick out; the image is let go when the guest has noticed."""
        self("device_del", id=f"{name}-plug")
        self._wait_for_event("DEVICE_DELETED", device=f"{name}-plug")
        self("blockdev-del", node_name=name)

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()

    def _wait_for_event(self, event: str, **data: object) -> None:
        while True:
            said = json.loads(self._lines.readline())
            if said.get("event") == event and data.items() <= said["data"].items():
                return
