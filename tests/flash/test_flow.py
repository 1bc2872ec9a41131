"""A board is flashed from archives to the last command, with programs that fail where NVIDIA's would."""

import subprocess
from pathlib import Path

import pytest

from controller.ops.flash import plan
from controller.ops.flash.__main__ import _perform
from controller.ops.flash.boards import choose_board, read_boards
from controller.ops.flash.commands import Step
from controller.ops.flash.gather import write_order
from controller.ops.flash.plan import OUR_LAYOUT
from controller.ops.flash.work import carry_out
from controller.ops.steps import StepError
from tests.flash.conftest import Bench

ORDER = ["l4t_flash_prerequisites.sh", "apply_binaries.sh", "l4t_create_default_user.sh", "l4t_initrd_flash.sh"]


def test_a_board_is_flashed(flashed: Bench) -> None:
    """Everything is called in NVIDIA's order, with its options, and exactly that board is written."""
    assert ORDER == flashed.tools()
    last = flashed.calls()[-1]
    assert [
        *("--external-device", "nvme0n1p1", "-c", OUR_LAYOUT, "-S", "16GiB"),
        *("-p", "-c bootloader/generic/cfg/flash_t234_qspi.xml", "--showlogs", "--network", "usb0"),
        *("jetson-orin-nano-devkit-super", "external"),
    ] == last["argv"]
    assert {"USER": "root", "ROOTFS_AB": "1", "ROOTFS_RETRY_COUNT_MAX": "3"} == last["environ"]
    assert {
        "board": "jetson-orin-nano-devkit-super",
        "device": "external",
        "product": "7523",
        "root": "16GiB",
    } == flashed.flashed()


def test_its_root_file_system_is_an_appliance(flashed: Bench) -> None:
    """Docker with NVIDIA's runtime, our package, no desktop, a key and no password, the data partition, nothing left over."""
    log = (flashed.root / "var/log/standin.log").read_text().splitlines()
    installed = [line for line in log if line.startswith("apt-get install")]
    assert "nvidia-container-toolkit" in installed[0]
    assert installed[1].endswith("/opt/windlass-setup/windlass-box.deb")
    assert "systemctl set-default multi-user.target" in log
    assert log.index(installed[1]) < log.index("nvidia-ctk runtime configure --runtime=docker --set-as-default")
    assert "passwd --lock windlass" in log
    assert "windlass ALL=(ALL) NOPASSWD: ALL\n" == (flashed.root / "etc/sudoers.d/windlass").read_text()
    assert not (flashed.root / "etc/ssh/sshd_config.d/05-windlass-password.conf").exists()
    assert "PasswordAuthentication no" in (flashed.root / "etc/ssh/sshd_config.d/10-windlass.conf").read_text()
    assert "/usr/lib/systemd/system/multi-user.target" == str((flashed.root / "etc/systemd/system/default.target").readlink())
    assert "/dev/windlass/data /var/lib/windlass ext4" in (flashed.root / "etc/fstab").read_text()
    assert "deb jetson t234\n" == (flashed.root / "etc/apt/sources.list.d/nvidia-l4t-apt-source.list").read_text()
    assert (flashed.root / "usr/lib/windlass/first-boot").stat().st_mode & 0o111
    assert "/var/lib/windlass/etc/hostname" == str((flashed.root / "etc/hostname").readlink())
    assert not (flashed.root / "opt/windlass-setup").exists()
    assert not (flashed.root / "usr/sbin/policy-rc.d").exists()


def test_it_takes_the_updates_of_its_kind(flashed: Bench) -> None:
    """Its slots are NVIDIA's two root file systems, its boot loader NVIDIA's, and bundles for another board are not for it."""
    told = (flashed.root / "etc/rauc/system.conf").read_text()
    assert "compatible=windlass-jetson-orin-nano\n" in told
    assert "device=/dev/windlass/APP_b\n" in told
    assert "bootloader=custom\n" in told
    assert (flashed.root / "etc/rauc/keyring.pem").is_file()
    assert "TARGET=jetson-orin-nano\n" in (flashed.root / "usr/share/windlass/target.env").read_text()
    assert "IMAGE_ID=windlass\nIMAGE_VERSION=" in (flashed.root / "usr/lib/os-release").read_text()


def test_keys_lie_with_the_data(flashed: Bench) -> None:
    """The data partition begins as a file system of ours with the keys that may log in; they lie below it, too."""
    image = flashed.work / "Linux_for_Tegra/bootloader/windlass-data.img"
    asked = subprocess.run(["debugfs", "-R", "cat /etc/authorized_keys", image], capture_output=True, text=True, check=True)
    assert "ssh-ed25519 AAAA somebody\n" == asked.stdout
    assert asked.stdout == (flashed.root / "var/lib/windlass/etc/authorized_keys").read_text()


def test_nothing_stays_mounted(flashed: Bench) -> None:
    """What was mounted inside the root file system belonged to that one command alone."""
    assert f"{flashed.root}" not in Path("/proc/self/mounts").read_text()


def test_a_release_comes_along(bench: Bench) -> None:
    """A payload lies where the first boot looks for it, and the package's own models are left alone."""
    bench.plug_in("7523")
    payload = make_payload(bench.folder / "payload")

    bench.flash(PAYLOAD=str(payload))
    (bench.root / "usr/share/windlass/models").mkdir()
    bench.flash(PAYLOAD=str(payload))

    shared = bench.root / "usr/share/windlass"
    assert "images" == (shared / "images/images.tar.zst").read_text()
    assert "WINDLASS_VERSION=1\n" == (shared / "release/release.env").read_text()
    assert not (shared / "machine").exists()
    assert (shared / "models").is_dir()


def test_a_password_is_used_and_never_written_down(bench: Bench) -> None:
    """Who sets a password may log in with it; it is in no log and in no journal."""
    bench.plug_in("7523")

    bench.flash(PASSWORD="correct horse", KEYS=str(bench.folder / "none"))

    (create,) = [call for call in bench.calls() if call["tool"] == "l4t_create_default_user.sh"]
    assert "correct horse" in create["argv"]
    assert "passwd --lock windlass" not in (bench.root / "var/log/standin.log").read_text()
    kept = [one for one in (*bench.work.glob("log/*"), *bench.work.glob("*.json")) if "correct horse" in one.read_text()]
    assert [] == kept
    assert "Password - ****" in (bench.work / "log/l4t_create_default_user.sh.log").read_text()


@pytest.mark.parametrize("left_out", ["unpack", "prerequisites", "binaries", "user", "system", "layout"])
def test_every_step_is_needed(bench: Bench, left_out: str) -> None:
    """Without any one step nothing is written to the board: a later program stumbles over it."""
    bench.plug_in("7523")
    steps, write = steps_of(bench)

    with pytest.raises(StepError):
        carry_out((*(one for one in steps if one.name != left_out), write), bench.work, _perform(bench.work))

    assert bench.flashed() is None


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("unpack", "prerequisites"), ("prerequisites", "binaries"), ("binaries", "user"), ("user", "system"), ("layout", "flash")],
)
def test_the_order_matters(bench: Bench, earlier: str, later: str) -> None:
    """Two steps in the wrong order do not lead to a board that is written."""
    bench.plug_in("7523")
    steps, write = steps_of(bench)
    swapped = {earlier: later, later: earlier}
    by_name = {one.name: one for one in (*steps, write)}
    wrong = [by_name[swapped.get(name, name)] for name in by_name]

    with pytest.raises(StepError):
        carry_out(wrong, bench.work, _perform(bench.work))

    assert bench.flashed() is None


def test_a_dry_run_prints_all_and_does_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command comes in its order, as a shell reads it; nothing is asked, made or called."""
    bench.flash(DRY_RUN="1", YES="", ACCEPT_LICENSE="", BSP=str(bench.folder / "nowhere"))

    lines = capsys.readouterr().out.splitlines()
    at = [next(number for number, line in enumerate(lines) if tool in line) for tool in ("curl", *ORDER)]
    assert sorted(at) == at
    assert "-p '-c bootloader/generic/cfg/flash_t234_qspi.xml'" in lines[-1]
    assert any("-p **** -n windlass" in line for line in lines)
    assert not bench.work.exists()


def make_payload(folder: Path, *, machine: str = "aarch64") -> Path:
    """Make a release with its images, as the payload program does."""
    (folder / "release").mkdir(parents=True)
    (folder / "release/release.env").write_text("WINDLASS_VERSION=1\n", encoding="ascii")
    (folder / "images").mkdir()
    (folder / "images/images.tar.zst").write_text("images", encoding="ascii")
    (folder / "machine").write_text(f"{machine}\n", encoding="ascii")
    return folder


def steps_of(bench: Bench) -> tuple[tuple[Step, ...], Step]:
    """Return the steps that a run of this bench has."""
    board = choose_board(read_boards(bench.place.boards), "jetson-orin-nano")
    order, _ = write_order(board, bench.inquiry(), bench.place)
    return plan.prepare(order), plan.flash(order)
