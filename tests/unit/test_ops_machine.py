"""The virtual machine that an image is started in."""

import itertools
import os
from pathlib import Path

from controller.ops.appliance import layout
from controller.ops.appliance.boot import choose_accelerator, own_keys
from controller.ops.appliance.machine import (
    FIRMWARE,
    TRIAL_SECTOR,
    TRIAL_STATUS,
    Machine,
    layer_argv,
    machine_argv,
    newest,
    trial_argv,
    write_argv,
)
from controller.ops.appliance.target import UEFI_LOADERS
from controller.units import GIB, MIB


def machine(architecture: str = "amd64", accelerator: str = "tcg") -> Machine:
    """Make one."""
    return Machine(
        firmware=FIRMWARE[architecture],
        accelerator=accelerator,
        disk=Path("disk.qcow2"),
        variables=Path("variables.fd"),
        port=8001,
        ssh_port=2022,
        memory_mib=2048,
        cores=2,
    )


def after(argv: list[str], option: str) -> list[str]:
    """Return the values of an option."""
    return [value for name, value in itertools.pairwise(argv) if name == option]


def test_ports_lead_in_from_loopback_alone() -> None:
    """Nobody on the network reaches a machine that somebody tries out."""
    (net,) = after(machine_argv(machine()), "-netdev")

    assert "user,id=net,hostfwd=tcp:127.0.0.1:8001-:8000,hostfwd=tcp:127.0.0.1:2022-:22" == net


def test_the_firmware_itself_is_never_written() -> None:
    """Only its variables are, and those are a copy."""
    code, variables, disk = after(machine_argv(machine()), "-drive")

    assert "readonly=on" in code
    assert "readonly=on" not in variables
    assert "file=variables.fd" in variables
    assert "file=disk.qcow2" in disk


def test_without_kvm_processors_are_translated() -> None:
    """With it they are the machine's own."""
    assert ["tcg,thread=multi"] == after(machine_argv(machine()), "-accel")
    assert ["max"] == after(machine_argv(machine()), "-cpu")
    assert ["kvm"] == after(machine_argv(machine(accelerator="kvm")), "-accel")
    assert ["host"] == after(machine_argv(machine(accelerator="kvm")), "-cpu")


def test_every_architecture_of_an_image_has_firmware() -> None:
    """What can be made can be started."""
    assert set(UEFI_LOADERS) == set(FIRMWARE)
    assert "i6300esb" in after(machine_argv(machine()), "-device")
    assert "i6300esb" not in after(machine_argv(machine("arm64")), "-device")


def test_an_accelerator_that_was_asked_for_is_taken() -> None:
    """Nothing is tried then, and none is there for other processors."""
    assert "kvm" == choose_accelerator(architecture="arm64", environ={"ACCEL": "kvm"})
    assert "tcg" == choose_accelerator(architecture="arm64", environ={})


def test_the_trial_is_a_boot_sector() -> None:
    """Firmware starts it by its last two bytes; it tells the exit device its code."""
    assert 512 == len(TRIAL_SECTOR)
    assert b"\x55\xaa" == TRIAL_SECTOR[-2:]
    assert 33 == TRIAL_STATUS
    assert ["kvm"] == after(trial_argv(Path("sector.img")), "-accel")


def test_the_trial_has_the_processor_of_the_machine() -> None:
    """QEMU aborts over one that KVM cannot make whole, which a trial with another would not find."""
    tried, started = trial_argv(Path("sector.img")), machine_argv(machine(accelerator="kvm"))
    assert after(started, "-cpu") == after(tried, "-cpu") == ["host"]


def test_a_disk_is_a_layer_and_a_partition_a_window() -> None:
    """The image stays as it is, whatever is written."""
    assert ["-b", "a.img", "-F", "raw", "disk.qcow2", str(GIB)] == layer_argv(Path("a.img"), Path("disk.qcow2"), size_bytes=GIB)[
        -6:
    ]
    part = layout.Partition(
        number=1, label="esp", type_code="EF00", start_bytes=MIB, size_bytes=2 * MIB, guid=layout.derive_id("a", "esp")
    )
    *_, source, option, window = write_argv(Path("esp.vfat"), Path("disk.qcow2"), part)

    assert ("esp.vfat", "--target-image-opts") == (source, option)
    assert window.startswith(f"driver=raw,offset={MIB},size={2 * MIB},file.driver=qcow2,")


def test_the_newest_image_is_started(tmp_path: Path) -> None:
    """By when it was made, not by its name."""
    (tmp_path / "z.img").touch()
    (tmp_path / "a.img").touch()
    os.utime(tmp_path / "z.img", (0, 0))

    assert tmp_path / "a.img" == newest(list(tmp_path.glob("*.img")))
    assert newest([]) is None


def test_ones_own_keys_may_log_in(tmp_path: Path) -> None:
    """The public halves, a line each; somebody without any gets none."""
    assert "" == own_keys(tmp_path)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text("ssh-ed25519 AAAA ann")
    (tmp_path / ".ssh" / "id_ed25519").write_text("secret")

    assert "ssh-ed25519 AAAA ann\n" == own_keys(tmp_path)
