"""Who a machine is: its name, its keys, and what somebody has put on its boot partition, through power cuts at every change."""

import os
import signal
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "appliance" / "os" / "tree" / "usr" / "lib" / "windlass" / "first-boot"
MACHINE_ID = "0123456789abcdef0123456789abcdef"
DEFAULT = '[gateway]\nlisten = "0.0.0.0:8000"\n'


class Machine:
    """A machine in a folder: a data partition, an ESP, and what its board says of itself."""

    def __init__(self, folder: Path) -> None:
        """Make one that has never been on."""
        self.home, self.esp, self.facts, self.tools = (folder / name for name in ("data", "esp", "facts", "tools"))
        self.shared = folder / "shared"
        for made in (self.home, self.esp, self.facts / "etc", self.tools, self.shared):
            made.mkdir(parents=True)
        (self.facts / "etc" / "machine-id").write_text(f"{MACHINE_ID}\n")
        (self.shared / "target.env").write_text("TARGET=test\nSWAP_BYTES=0\n")
        (self.shared / "appliance.toml").write_text(DEFAULT)

    def board(self, **told: str) -> None:
        """Let the firmware tell these numbers."""
        folder = self.facts / "sys" / "class" / "dmi" / "id"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in told.items():
            (folder / name).write_text(f"{text}\n")

    def tool(self, name: str, script: str) -> None:
        """Put a program before the real one."""
        file = self.tools / name
        file.write_text(f"#!/bin/bash\n{script}\n")
        file.chmod(0o755)

    def start(self, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Start it."""
        return subprocess.run(
            [SCRIPT],
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            env={
                "PATH": f"{self.tools}:{os.environ['PATH']}",
                "WINDLASS_HOME": str(self.home),
                "WINDLASS_HANDED": str(self.esp),
                "WINDLASS_FACTS": str(self.facts),
                "WINDLASS_SHARED": str(self.shared),
                "WINDLASS_SCRIPTS": str(PROJECT / "appliance" / "box" / "tree" / "usr" / "lib" / "windlass"),
                **(environ or {}),
            },
        )

    def started(self) -> "Machine":
        """Start it, and see that all went well."""
        done = self.start()

        assert 0 == done.returncode, done.stderr
        return self

    def read(self, name: str) -> str:
        """Read a file of its own."""
        return (self.home / "etc" / name).read_text()

    def mode(self, name: str) -> int:
        """Say who may read a file of its own."""
        return stat.S_IMODE((self.home / "etc" / name).stat().st_mode)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine that has never been on."""
    return Machine(tmp_path)


def fingerprint(machine: Machine) -> str:
    """Return the machine's host key as its private half has it."""
    key = machine.home / "etc" / "ssh" / "ssh_host_ed25519_key"
    return subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True).stdout.split()[1]


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"product_serial": "PF-3X 77/A"}, "windlass-pf-3x-77-a"),
        ({"product_serial": "To Be Filled By O.E.M.", "board_serial": "M80-1"}, "windlass-m80-1"),
        ({"product_serial": "Default string", "board_serial": "0000000", "chassis_serial": "123456789"}, "windlass-01234567"),
        ({"product_serial": "Not Specified"}, "windlass-01234567"),
        ({"product_serial": "System Serial Number"}, "windlass-01234567"),
        ({}, "windlass-01234567"),
    ],
)
def test_a_machine_is_named_after_its_serial_number(machine: Machine, told: dict[str, str], name: str) -> None:
    """What boards say that were given no number tells nobody apart; then it is the machine's own id."""
    machine.board(**told)

    assert f"{name}\n" == machine.started().read("hostname")


def test_a_jetson_tells_its_number_in_the_device_tree(machine: Machine) -> None:
    """It ends with a zero byte there."""
    folder = machine.facts / "proc" / "device-tree"
    folder.mkdir(parents=True)
    (folder / "serial-number").write_bytes(b"1424723012345\0")

    assert "windlass-1424723012345\n" == machine.started().read("hostname")


def test_what_lies_on_the_boot_partition_is_taken(machine: Machine) -> None:
    """Written by any editor on any system; the keys are read by root alone."""
    (machine.esp / "authorized_keys").write_bytes(b"\xef\xbb\xbfssh-ed25519 AAAA ann\r\n")
    (machine.esp / "hostname").write_text("Ann's Box\r\n")
    (machine.esp / "appliance.toml").write_text('[gateway]\r\nlisten = "0.0.0.0:80"\r\n')

    machine.started()

    assert "ssh-ed25519 AAAA ann\n" == machine.read("authorized_keys")
    assert 0o600 == machine.mode("authorized_keys")
    assert "ann-s-box\n" == machine.read("hostname")
    assert '[gateway]\nlisten = "0.0.0.0:80"\n' == machine.read("windlass/appliance.toml")


def test_what_cannot_be_read_there_stops_nothing_else(machine: Machine) -> None:
    """A machine without a name and a host key could not be reached to put it right."""
    (machine.esp / "authorized_keys").write_text("ssh-ed25519 AAAA ann\n")
    machine.started()
    (machine.esp / "authorized_keys").unlink()
    (machine.esp / "authorized_keys").mkdir()
    (machine.esp / "hostname").write_text("box\n")

    assert "authorized_keys on the ESP could not be taken" in machine.start().stdout
    assert "ssh-ed25519 AAAA ann\n" == machine.read("authorized_keys")
    assert "box\n" == machine.read("hostname")
    assert fingerprint(machine)


def test_without_anything_there_it_can_be_used_all_the_same(machine: Machine) -> None:
    """It listens to the network, and nobody may log in."""
    machine.started()

    assert DEFAULT == machine.read("windlass/appliance.toml")
    assert not (machine.home / "etc" / "authorized_keys").exists()
    assert 0o600 == machine.mode("ssh/ssh_host_ed25519_key")


def test_a_second_start_changes_nothing(machine: Machine) -> None:
    """Name and keys stay, whatever the board says later."""
    machine.board(product_serial="A1")
    before = fingerprint(machine.started())

    assert before == fingerprint(machine.started())
    assert "windlass-a1\n" == machine.read("hostname")


def test_what_was_altered_on_the_box_stays_until_the_boot_partition_changes(machine: Machine) -> None:
    """A file there is taken once for each of its contents."""
    (machine.esp / "appliance.toml").write_text("first\n")
    machine.started()
    (machine.home / "etc" / "windlass" / "appliance.toml").write_text("altered on the box\n")
    assert "altered on the box\n" == machine.started().read("windlass/appliance.toml")

    (machine.esp / "appliance.toml").write_text("second\n")

    assert "second\n" == machine.started().read("windlass/appliance.toml")


def test_half_a_host_key_is_made_anew(machine: Machine) -> None:
    """A machine without a key that works could not be reached at all."""
    machine.started()
    key = machine.home / "etc" / "ssh" / "ssh_host_ed25519_key"
    key.write_bytes(key.read_bytes()[:40])

    assert fingerprint(machine.started())


def test_a_power_cut_before_any_change_is_made_up_for(machine: Machine) -> None:
    """Cut before the first renaming, before the second and so on, each start finds whole files and ends what was begun."""
    (machine.esp / "authorized_keys").write_text("ssh-ed25519 AAAA ann\n")
    (machine.esp / "hostname").write_text("box\n")
    counter = machine.tools / "count"
    machine.tool("mv", f'n=$(($(cat {counter}) - 1)); echo $n >{counter}; [ $n -gt 0 ] || kill -KILL 0; exec /bin/mv "$@"')
    cuts = 0
    for allowed in range(1, 50):
        counter.write_text(str(allowed))
        done = machine.start()
        whole = {"authorized_keys": "ssh-ed25519 AAAA ann\n", "hostname": "box\n", "windlass/appliance.toml": DEFAULT}
        for name, content in whole.items():
            assert not (machine.home / "etc" / name).exists() or content == machine.read(name)
        if done.returncode == 0:
            break
        assert -signal.SIGKILL == done.returncode
        cuts += 1
        # A cut one may have got a step further than the one before; all are begun from nothing.
        subprocess.run(["find", machine.home, "-mindepth", "1", "-delete"], check=True)
        counter.write_text(str(allowed))
        machine.start()
        counter.write_text("1000")
        machine.started()
        assert all(content == machine.read(name) for name, content in whole.items())
        assert fingerprint(machine)
        subprocess.run(["find", machine.home, "-mindepth", "1", "-delete"], check=True)

    assert cuts >= 7, "the machine was cut less often than it renames files"


def test_a_swap_file_is_made_once(machine: Machine) -> None:
    """Of the size that the kind of box wants, readable for root alone, and used at every start."""
    (machine.shared / "target.env").write_text("TARGET=test\nSWAP_BYTES=4096\n")
    used = machine.tools / "used"
    machine.tool("swapon", f'echo "$1" >>{used}')
    machine.tool("mkswap", "exit 0")
    swap = machine.home / "swap"
    machine.started()
    made = swap.stat().st_ino
    machine.started()

    assert (4096, 0o600, made) == (swap.stat().st_size, stat.S_IMODE(swap.stat().st_mode), swap.stat().st_ino)
    assert [str(swap)] * 2 == used.read_text().split()


def test_a_full_disk_starts_without_swap(machine: Machine) -> None:
    """It says so and goes on."""
    (machine.shared / "target.env").write_text("TARGET=test\nSWAP_BYTES=4096\n")
    machine.tool("fallocate", "exit 1")
    machine.tool("swapon", "exit 9")

    assert "no room for 4096 bytes of swap" in machine.start().stdout
    assert not (machine.home / "swap").exists()
