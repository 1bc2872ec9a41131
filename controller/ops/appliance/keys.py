"""
Who may sign updates: an authority whose certificate every image carries, and a key with a certificate of that authority.

For development both are made here, once, in `build/update-keys`, and trusted by nobody but the images made on this machine. A
release is made with others: UPDATE_CERT names what boxes trust, UPDATE_SIGNER and UPDATE_KEY what signs. The authority's own key
is not needed for a bundle, so it can lie in a safe; a lost signing key is replaced without touching a box. One that somebody else
has is revoked: a list that the authority has signed, behind its certificate in the same file, which the next image carries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.ops.steps import StepError, run_step

FOLDER: Final = Path("build/update-keys")
VALID_DAYS: Final = 3650
CURVE: Final = "P-256"
_NEW_KEY: Final = ("openssl", "req", "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{CURVE}", "-nodes", "-sha256")
_REVOCATIONS: Final = b"-----BEGIN X509 CRL-----"
WARNING: Final = (
    "  WARNING: signed for development. Whoever has build/update-keys can put anything onto boxes that trust it;\n"
    "  for boxes that leave this desk name your own: UPDATE_CERT=, UPDATE_SIGNER=, UPDATE_KEY="
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """
    What an image or a bundle is made with.

    Attributes:
        trusted: the authority's certificate, which boxes carry, and behind it which keys it has revoked, if any.
        signer: the certificate of the signing key.
        key: the signing key; a file or a `pkcs11:` address.
        development: they were made here, and everybody who has this folder can sign.

    """

    trusted: Path
    signer: str
    key: str
    development: bool

    @property
    def revokes(self) -> bool:
        """Whether there is a list of revoked keys. Only then do boxes look for one: who looks and finds none takes no bundle."""
        return _REVOCATIONS in self.trusted.read_bytes()


def choose_keys(project: Path, environ: Mapping[str, str]) -> Keys:
    """
    Say which keys are meant.

    Raises:
        StepError: some of the three are named and some are not, or a file is missing.

    """
    names = ("UPDATE_CERT", "UPDATE_SIGNER", "UPDATE_KEY")
    given = {name: environ.get(name, "") for name in names}
    folder = project / FOLDER
    if not any(given.values()):
        return Keys(
            trusted=folder / "authority.pem", signer=f"{folder / 'signer.pem'}", key=f"{folder / 'signer.key'}", development=True
        )
    if not given["UPDATE_CERT"]:
        raise StepError("UPDATE_SIGNER and UPDATE_KEY are given without UPDATE_CERT: name the certificate that boxes trust, too")
    for name, value in given.items():
        if value and not value.startswith("pkcs11:") and not Path(value).is_file():
            raise StepError(f"{name}={value}: there is no such file")
    return Keys(trusted=Path(given["UPDATE_CERT"]), signer=given["UPDATE_SIGNER"], key=given["UPDATE_KEY"], development=False)


def authority_steps(folder: Path) -> Sequence[tuple[str, list[str]]]:
    """List the commands that make an authority."""
    return (
        (
            "authority for updates",
            [
                *_NEW_KEY, "-x509", "-days", str(VALID_DAYS), "-subj", "/O=Windlass/CN=development updates",
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                "-keyout", str(folder / "authority.key"), "-out", str(folder / "authority.pem"),
            ],
        ),
    )  # fmt: skip


def signer_steps(folder: Path) -> Sequence[tuple[str, list[str]]]:
    """List the commands that make a signing key, with a certificate of the authority that is there."""
    authority, authority_key = str(folder / "authority.pem"), str(folder / "authority.key")
    signer, signer_key, request = str(folder / "signer.pem"), str(folder / "signer.key"), str(folder / "signer.csr")
    return (
        (
            "key for updates",
            [
                *_NEW_KEY, "-subj", "/O=Windlass/CN=development signer", "-addext", "basicConstraints=critical,CA:FALSE",
                "-addext", "keyUsage=critical,digitalSignature", "-keyout", signer_key, "-out", request,
            ],
        ),
        (
            "certificate of the key",
            [
                "openssl", "x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority_key, "-CAcreateserial",
                "-days", str(VALID_DAYS), "-sha256", "-copy_extensions", "copyall", "-out", signer,
            ],
        ),
    )  # fmt: skip


def ensure_keys(project: Path, environ: Mapping[str, str]) -> Keys:
    """Return the keys that are meant, and make those for development where they are missing."""
    keys = choose_keys(project, environ)
    if keys.development and not Path(keys.signer).is_file():
        make_keys(project / FOLDER, log=project / "build" / "logs" / "update-keys.log")
    return keys


def make_keys(folder: Path, *, log: Path) -> None:
    """Make an authority and a signing key; what is there stays, and an authority without a signing key gets one."""
    if (folder / "signer.pem").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    authority = () if (folder / "authority.pem").is_file() else authority_steps(folder)
    for title, argv in (*authority, *signer_steps(folder)):
        run_step(title, argv, log=log)
