"""What a machine tells on its consoles: where it is reached, its first key once, and whether it is well."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "appliance" / "os" / "tree" / "usr" / "lib" / "windlass" / "welcome"
KEY: Final = "wl_first"
WELL: Final = '{"status":"ok","reasons":[]}'


def link(name: str, *addresses: str) -> dict[str, Any]:
    """Describe an interface as `ip` does; an address of another scope than the one asked for is an empty object."""
    return {"ifname": name, "addr_info": [{"local": address} if address else {} for address in addresses]}


class Machine:
    """A machine in a folder, with two consoles and a gateway that is well."""

    def __init__(self, folder: Path) -> None:
        """Make one with a key that nobody was told."""
        self.home, self.facts, self.tools = (folder / name for name in ("data", "facts", "tools"))
        (self.home / "etc").mkdir(parents=True)
        (self.home / "etc" / "api-key").write_text(f"{KEY}\n")
        active = self.facts / "sys" / "class" / "tty" / "console" / "active"
        active.parent.mkdir(parents=True)
        active.write_text("tty0 ttyS0\n")
        (self.facts / "dev").mkdir()
        self.tools.mkdir()
        self.tool("curl", f"echo '{WELL}'")
        self.tool("windlass", "echo 'ok: no problem found'")
        self.network([link("eth0", "10.0.2.15")])

    def tool(self, name: str, script: str) -> None:
        """Put a program before the real one."""
        file = self.tools / name
        file.write_text(f"#!/bin/bash\n{script}\n")
        file.chmod(0o755)

    def network(self, links: list[dict[str, Any]]) -> None:
        """Let the machine have these interfaces."""
        self.tool("ip", f"echo '{json.dumps(links)}'")

    def told(self) -> str:
        """Return what it says at a start: the same on both consoles."""
        done = subprocess.run(
            [SCRIPT],
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": f"{self.tools}:{os.environ['PATH']}",
                "WINDLASS_HOME": str(self.home),
                "WINDLASS_FACTS": str(self.facts),
                "WINDLASS_LISTEN": "0.0.0.0:8000",
                "WINDLASS_SCRIPTS": str(PROJECT / "appliance" / "box" / "tree" / "usr" / "lib" / "windlass"),
                "WINDLASS_WELL_WITHIN_S": "1",
            },
        )
        screen, serial = ((self.facts / "dev" / name).read_text() for name in ("tty0", "ttyS0"))

        assert 0 == done.returncode, done.stderr
        assert screen == serial
        return screen

    def addresses(self) -> list[str]:
        """Return the addresses that it tells."""
        return [line.split()[1] for line in self.told().splitlines() if line.startswith("  address ")]

    @property
    def issue(self) -> str:
        """What is shown above every login."""
        return (self.facts / "run" / "issue.d" / "windlass.issue").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Make a machine."""
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("links", "addresses"),
    [
        pytest.param([link("eth0", "10.0.2.15")], ["http://10.0.2.15:8000"], id="one"),
        pytest.param([link("eth0", "10.0.2.15", "")], ["http://10.0.2.15:8000"], id="one of another scope"),
        pytest.param([{}, link("eth0", "10.0.2.15")], ["http://10.0.2.15:8000"], id="an interface without any"),
        pytest.param([link("eth0", "fd00::2")], ["http://[fd00::2]:8000"], id="of version 6"),
        pytest.param(
            [link("eth0", "10.0.0.9"), link("wlan0", "10.0.0.8")], ["http://10.0.0.8:8000", "http://10.0.0.9:8000"], id="two"
        ),
        pytest.param([link("docker0", "172.17.0.1"), link("veth3", "10.1.1.1"), link("br-ab", "10.2.2.2")], [], id="Docker's"),
    ],
)
def test_the_addresses_are_those_that_others_reach(machine: Machine, links: list[dict[str, Any]], addresses: list[str]) -> None:
    """One line each, and none for what only the machine itself knows."""
    machine.network(links)

    assert addresses == machine.addresses()


def test_the_key_is_told_once(machine: Machine) -> None:
    """At the first start on the consoles; never above a login, and never again."""
    first = machine.told()
    issue = machine.issue

    assert KEY in first
    assert KEY not in issue
    assert KEY not in machine.told()
    assert "http://10.0.2.15:8000" in issue


def test_a_machine_that_is_not_well_says_so(machine: Machine) -> None:
    """It waits as long as it was told to, and then tells what it knows."""
    machine.tool("curl", "exit 7")

    assert "health   nobody answers yet" in machine.told()


def test_the_check_is_told(machine: Machine) -> None:
    """And who may log in."""
    told = machine.told()

    assert "ok: no problem found" in told
    assert f"health   {WELL}" in told
    assert "nobody may log in" in told
