"""
A machine in a window without a window: QEMU with UEFI, a disk, a serial line, a network and a power switch.

Whatever happens, it is off when its block has been left, or when the process of the tests has ended in any other way.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx

from bench.stack import free_port
from tests.appliance import hardware
from tests.appliance.console import Console
from tests.appliance.disk import Disk
from tests.appliance.drive import Drive
from tests.appliance.hardware import Hardware, Wiring
from tests.appliance.monitor import Monitor
from tests.appliance.remote import Remote

SHELL_WITHIN_S: Final = 300.0
HEALTHY_WITHIN_S: Final = 600.0
OFF_WITHIN_S: Final = 180.0
_STEP_S: Final = 0.5


class Vm:
    """
    One machine.

    Attributes:
        disk: what it boots from; stays when the machine is switched off.
        console: what it says on its serial line.
        shell: runs commands in it, copies files.
        url: where its gateway answers.

    """

    def __init__(self, disk: Disk, folder: Path, made_of: Hardware, *, user: str = "root") -> None:
        """Put it together; it is off. *folder* is the machine's own, and its path is short."""
        self.disk = disk
        self.folder = folder
        self.hardware = made_of
        variables = folder / "variables.fd"
        shutil.copyfile(hardware.FIRMWARE_VARIABLES, variables)
        http_port, ssh_port = free_port(), free_port()
        options = Drive.options(disk, folder / "drive.sock")
        self.wiring = Wiring(disk=options, variables=variables, folder=folder, http_port=http_port, ssh_port=ssh_port)
        self.console = Console(self.wiring.console)
        self.shell = Remote(folder, port=ssh_port, user=user)
        self.url = f"http://127.0.0.1:{http_port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._drive: Drive | None = None
        self._switched_on_s = 0.0

    def switch_on(self) -> None:
        """Give it power; returns at once."""
        assert not self.is_on(), "the machine is on already"
        self._drive = Drive(self.disk, self.folder / "drive.sock", self.folder / "qemu.log")
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *hardware.argv(self.hardware, self.wiring)]
        with (self.folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._switched_on_s = time.monotonic()

    def is_on(self) -> bool:
        """Say whether it has power."""
        return self._process is not None and self._process.poll() is None

    def seconds_on(self) -> float:
        """Return for how long it has had power."""
        return time.monotonic() - self._switched_on_s

    def cut(self) -> None:
        """Pull the plug: what was in its memory is lost, and what its disk has not been asked to keep."""
        if self._process is not None and self._drive is not None:
            self._process.kill()
            self._drive.cut()
            self._process.wait()
        self._is_off()

    def shut_down(self, *, within_s: float = OFF_WITHIN_S) -> None:
        """Press the power button and wait until it is off."""
        assert self._process is not None
        with self.monitor() as monitor:
            monitor("system_powerdown")
        try:
            self._process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"pressed the power button {within_s:.0f} s ago, and it is on:\n{self.console.tail()}") from None
        self._is_off()

    def _is_off(self) -> None:
        if self._drive is not None:
            self._drive.stop()
        self._process = self._drive = None
        self.shell.hang_up()

    @contextmanager
    def monitor(self) -> Iterator[Monitor]:
        """Talk to its monitor for as long as the block lasts."""
        monitor = Monitor(self.wiring.monitor)
        try:
            yield monitor
        finally:
            monitor.close()

    def wait_for(self, pattern: str, *, within_s: float) -> str:
        """Return what stands on the console: the first group of *pattern*, or all of it if it has none."""
        found = self.console.wait_for(pattern, within_s=within_s, while_true=self.is_on)
        return found[1] if found.re.groups else found[0]

    def wait_for_shell(self, *, within_s: float = SHELL_WITHIN_S) -> None:
        """Return when it lets us in."""
        self.shell.wait(within_s=within_s, while_true=self.is_on)

    def wait_for_health(self, *, within_s: float = HEALTHY_WITHIN_S) -> dict[str, Any]:
        """Return what its gateway says of its health, as soon as it is not failing."""
        deadline_s = time.monotonic() + within_s
        seen: object = "nothing yet"
        while time.monotonic() < deadline_s and self.is_on():
            try:
                answer = httpx.get(f"{self.url}/health", timeout=20)
                if answer.status_code == httpx.codes.OK:
                    return dict(answer.json())
                seen = f"{answer.status_code} {answer.text}"
            except httpx.HTTPError as exc:
                seen = repr(exc)
            time.sleep(_STEP_S)
        raise AssertionError(f"waited {within_s:.0f} s for /health: {seen}\n{self.report()}")

    def authorise(self, more: Mapping[str, str | bytes] | None = None) -> None:
        """Put our key, and *more* files, into the folder of the boot partition that is for its owner."""
        self.disk.put({"windlass/authorized_keys": self.shell.public_key, **(more or {})})

    def report(self) -> str:
        """Return what helps to understand what has gone wrong in it."""
        parts = [f"--- the console of {self.disk.path}", self.console.tail()]
        with suppress(subprocess.TimeoutExpired, AssertionError):
            if self.is_on():
                asked = self.shell.run("systemctl --failed --no-pager; journalctl -b -n 80 --no-pager", within_s=60)
                parts += ["--- its journal", asked.out]
        log = self.folder / "qemu.log"
        if said := log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else "":
            parts += ["--- QEMU itself", said[-2000:]]
        return "\n".join(parts)


@contextmanager
def machine(disk: Disk, *, made_of: Hardware | None = None, user: str = "root") -> Iterator[Vm]:
    """Put a machine together around a disk; it is off, and it is off again when the block has been left."""
    with tempfile.TemporaryDirectory(prefix="wl-vm-") as folder:
        vm = Vm(disk, Path(folder), made_of or Hardware(), user=user)
        try:
            yield vm
        except BaseException:
            print(vm.report())  # noqa: T201 -- pytest shows it with the failure
            raise
        finally:
            vm.cut()
