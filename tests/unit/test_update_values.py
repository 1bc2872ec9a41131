"""What RAUC is told, and who may sign."""

import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from controller.ops.appliance import keys, rauc, update
from controller.ops.steps import StepError

PROJECT = Path(__file__).resolve().parents[2]


def read(text: str) -> ConfigParser:
    """Read a file of RAUC's."""
    parser = ConfigParser(strict=True)
    parser.read_string(text)
    return parser


def test_a_pc_has_two_slots_that_grub_chooses_from() -> None:
    """The slots are the layout's partitions, and GRUB's environment is where GRUB reads it."""
    told = read(rauc.system_configuration("qemu-amd64", compatible="windlass-qemu-amd64"))

    assert ("grub", "/boot/efi/EFI/BOOT/grubenv") == (told["system"]["bootloader"], told["system"]["grubenv"])
    assert "windlass-qemu-amd64" == told["system"]["compatible"]
    assert [("A", "/dev/windlass/root-a"), ("B", "/dev/windlass/root-b")] == [
        (told[f"slot.rootfs.{index}"]["bootname"], told[f"slot.rootfs.{index}"]["device"]) for index in (0, 1)
    ]


def test_a_jetson_is_asked_through_its_own_tool() -> None:
    """The platform counts the starts, and its partitions have NVIDIA's names."""
    told = read(rauc.system_configuration("jetson-orin-nano", compatible="windlass-jetson-orin-nano"))

    assert "custom" == told["system"]["bootloader"]
    assert "grubenv" not in told["system"]
    assert "/usr/lib/windlass/rauc-nvbootctrl" == told["handlers"]["bootloader-custom-backend"]
    assert ["/dev/windlass/APP", "/dev/windlass/APP_b"] == [told[f"slot.rootfs.{index}"]["device"] for index in (0, 1)]


@pytest.mark.parametrize("target", ["qemu-amd64", "jetson-orin-nano"])
def test_only_what_is_checked_block_by_block_is_taken_whatever_the_clock_says(target: str) -> None:
    """A plain bundle could be changed after its check, and a box without a battery does not know the day."""
    told = read(rauc.system_configuration(target, compatible=f"windlass-{target}"))

    assert "verity" == told["system"]["bundle-formats"]
    assert "true" == told["keyring"]["use-bundle-signing-time"]


@pytest.mark.parametrize("handler", ["pre-install", "post-install"])
def test_the_handlers_are_scripts_of_the_box(handler: str) -> None:
    """RAUC runs what the package brings."""
    told = read(rauc.system_configuration("qemu-amd64", compatible="windlass-qemu-amd64"))

    path = PROJECT / "appliance" / "box" / "tree" / told["handlers"][handler].removeprefix("/")
    assert path.stat().st_mode & 0o111


def test_a_bundle_says_for_whom_it_is() -> None:
    """The manifest names the kind of box, the version and the file."""
    told = read(rauc.manifest(compatible="windlass-qemu-amd64", version="1.2"))

    assert ("windlass-qemu-amd64", "1.2") == (told["update"]["compatible"], told["update"]["version"])
    assert ("verity", "root.ext4") == (told["bundle"]["format"], told["image.rootfs"]["filename"])


def test_a_version_is_named_once() -> None:
    """An image made of an image has the last name."""
    once = rauc.name_version("ID=debian\n", version="1")

    assert "ID=debian\nIMAGE_ID=windlass\nIMAGE_VERSION=2\n" == rauc.name_version(once, version="2")


def test_nvidias_kernels_get_what_every_kernel_reads() -> None:
    """Compression is gzip where nobody knows the kernel's options."""
    jetson, pc = (
        rauc.bundle_argv(Path("in"), Path("out"), signer="c", key="k", trusted=Path("t"), target=target)
        for target in ("jetson-orin-nano", "qemu-amd64")
    )

    assert "--mksquashfs-args=-comp gzip" in jetson
    assert "--mksquashfs-args=-comp zstd -Xcompression-level 3" in pc
    assert ["bundle", "in", "out"] == pc[-3:]


def test_a_key_signs_what_the_authority_vouches_for(tmp_path: Path) -> None:
    """The development keys are a chain that OpenSSL accepts, and stay when they are asked for again."""
    keys.make_keys(tmp_path / "keys", log=tmp_path / "log")
    before = (tmp_path / "keys" / "signer.pem").read_bytes()
    keys.make_keys(tmp_path / "keys", log=tmp_path / "log")

    folder = tmp_path / "keys"
    subprocess.run(
        ["openssl", "verify", "-CAfile", folder / "authority.pem", folder / "signer.pem"], check=True, capture_output=True
    )
    assert before == (folder / "signer.pem").read_bytes()
    assert 0o600 == (folder / "signer.key").stat().st_mode & 0o777
    assert 0o700 == folder.stat().st_mode & 0o777


def test_a_signing_key_is_replaced_and_revoked(tmp_path: Path) -> None:
    """By the commands of the handbook: the authority stays, vouches for another key, and takes back its word for the first."""
    folder = tmp_path / "build" / "update-keys"
    keys.make_keys(folder, log=tmp_path / "log")
    authority = (folder / "authority.pem").read_bytes()
    assert not keys.choose_keys(tmp_path, {}).revokes
    handbook = (PROJECT / "appliance" / "README.md").read_text(encoding="utf-8")
    (commands,) = (part for part in handbook.split("```") if "-gencrl" in part)
    subprocess.run(["bash", "-euc", commands.partition("\n")[2]], cwd=folder, check=True, capture_output=True)
    keys.make_keys(folder, log=tmp_path / "log")

    assert keys.choose_keys(tmp_path, {}).revokes
    assert (folder / "authority.pem").read_bytes().startswith(authority)
    verify = ["openssl", "verify", "-crl_check", "-CAfile", "authority.pem"]
    verified = [
        subprocess.run([*verify, name], cwd=folder, capture_output=True, text=True, check=False)
        for name in ("revoked/signer.pem", "signer.pem")
    ]
    assert "certificate revoked" in verified[0].stderr
    assert 0 == verified[1].returncode, verified[1].stderr


@pytest.mark.parametrize("revokes", [False, True])
def test_revoked_keys_are_looked_for_where_there_is_a_list(revokes: bool) -> None:
    """RAUC takes no bundle at all where it is to look and there is none."""
    told = read(rauc.system_configuration("qemu-amd64", compatible="windlass-qemu-amd64", revokes=revokes))

    assert revokes is told["keyring"].getboolean("check-crl", fallback=False)


def test_development_keys_are_taken_where_none_are_named(tmp_path: Path) -> None:
    """And they are called what they are."""
    chosen = keys.choose_keys(tmp_path, {})

    assert chosen.development
    assert tmp_path / "build" / "update-keys" / "authority.pem" == chosen.trusted


def test_an_image_may_trust_without_a_key_to_sign_with(tmp_path: Path) -> None:
    """Who makes an image need not be able to sign; a bundle then says what is missing."""
    (tmp_path / "release.pem").write_text("x")
    chosen = keys.choose_keys(tmp_path, {"UPDATE_CERT": str(tmp_path / "release.pem")})

    assert not chosen.development
    with pytest.raises(StepError, match="UPDATE_SIGNER and UPDATE_KEY"):
        update.pack(tmp_path, tmp_path / "b", trusted=chosen, target="qemu-amd64", log=tmp_path / "log")


@pytest.mark.parametrize(
    ("environ", "what"),
    [
        ({"UPDATE_KEY": "pkcs11:token=a"}, "without UPDATE_CERT"),
        ({"UPDATE_CERT": "/nowhere/cert.pem"}, "/nowhere/cert.pem: there is no such file"),
    ],
)
def test_half_of_the_keys_are_refused(tmp_path: Path, environ: dict[str, str], what: str) -> None:
    """A typing error must not end in an image that trusts the development key."""
    with pytest.raises(StepError, match=what):
        keys.choose_keys(tmp_path, environ)


def test_a_bundle_of_no_image_names_the_command_that_makes_one(tmp_path: Path) -> None:
    """The order of the commands is told."""
    with pytest.raises(StepError, match="make image TARGET=qemu-amd64"):
        update.read_image(tmp_path / "qemu-amd64")


def test_a_bundle_goes_to_a_box_resumably() -> None:
    """What had arrived when the link was cut is not sent again."""
    copy, install = update.send_argv(Path("/a/windlass-1.raucb"), "box")

    assert "--partial-dir=.arriving" in copy
    assert "box:/var/lib/windlass/incoming/windlass-1.raucb" == copy[-1]
    assert ["ssh", "box", "/usr/lib/windlass/update", "/var/lib/windlass/incoming/windlass-1.raucb"] == install
