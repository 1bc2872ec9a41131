"""The command that switches a machine on: what it is made of, and where its network leads."""

from itertools import pairwise
from pathlib import Path

import pytest

from tests.appliance.hardware import Hardware, Wiring, argv


@pytest.fixture
def wiring() -> Wiring:
    """Return where a machine is plugged in."""
    folder = Path("/tmp/m")
    return Wiring(disk="driver=raw", variables=folder / "v.fd", folder=folder, http_port=1234, ssh_port=1235)


def options(made: list[str], name: str) -> list[str]:
    """Return what is said with an option of QEMU."""
    return [value for option, value in pairwise(made) if option == name]


def test_the_network_leads_to_two_ports_of_the_loopback_alone(wiring: Wiring) -> None:
    """Nobody else on the network of this machine reaches the guest, and the guest reaches nobody."""
    (network,) = options(argv(Hardware(), wiring), "-netdev")

    assert "restrict=on" in network.split(",")
    assert ["hostfwd=tcp:127.0.0.1:1234-:8000", "hostfwd=tcp:127.0.0.1:1235-:22"] == [
        part for part in network.split(",") if part.startswith("hostfwd")
    ]


def test_a_machine_is_what_it_is_said_to_be(wiring: Wiring) -> None:
    """Memory, processors and serial number are those asked for."""
    made = argv(Hardware(memory_mib=512, cores=1, serial_number="S-9"), wiring)

    assert (["512"], ["1"]) == (options(made, "-m"), options(made, "-smp"))
    assert options(made, "-smbios")[0].endswith(",serial=S-9")


@pytest.mark.parametrize("watchdog", [True, False])
def test_a_watchdog_resets(wiring: Wiring, watchdog: bool) -> None:
    """A machine that stands still starts again, if it has the timer for it."""
    made = argv(Hardware(watchdog=watchdog), wiring)

    assert (["watchdog=reset"] if watchdog else []) == options(made, "-action")
