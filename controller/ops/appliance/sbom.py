"""
The list of everything in an operating system image, in CycloneDX's JSON: Debian's packages, Python's, and compiled sources. Pure.

It is read from what lies in the image and in its container images, not from what was asked for. The same image makes the same
list, byte for byte: it is sorted, bears the commit's time, and its serial number is derived from what it lists.
"""

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from controller.ops.appliance.layout import NAMESPACE

SPECIFICATION: Final = "1.6"
_STANZA: Final = re.compile(r"\n\n+")
_FIELD: Final = re.compile(r"^([A-Za-z-]+):[ \t]*(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Part:
    """
    One piece of software.

    Attributes:
        kind: what sort of package it is, as package URLs say it: `deb`, `pypi`, `generic`.
        name: what it is called.
        version: which one.
        architecture: of a Debian package.
        source: the Debian source package it was made from, where that has another name.
        sha256: of the archive it was compiled from.
        where: `system`, or the container image that holds it.

    """

    kind: str
    name: str
    version: str
    architecture: str = ""
    source: str = ""
    sha256: str = ""
    where: str

    @property
    def url(self) -> str:
        """Its package URL."""
        origin = "debian/" if self.kind == "deb" else ""
        extra = f"?arch={self.architecture}" if self.architecture else ""
        return f"pkg:{self.kind}/{origin}{quote(self.name)}@{quote(self.version)}{extra}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """
    What an image holds.

    Attributes:
        name: of the image.
        version: of the image.
        parts: in the system and in its container images.

    """

    name: str
    version: str
    parts: Sequence[Part] = field(default_factory=tuple)


def read_packages(status: str, *, where: str) -> Iterator[Part]:
    """Read dpkg's list of what is installed."""
    for stanza in _STANZA.split(status.strip()):
        # A continuation line begins with a space, and what it says is not asked for here.
        said = {name: value for name, value in _FIELD.findall(stanza)}  # noqa: C416 -- the last of a name would win in either
        if not said.get("Status", "").endswith(" installed"):
            continue
        yield Part(
            kind="deb",
            name=said["Package"],
            version=said["Version"],
            architecture=said["Architecture"],
            source=said.get("Source", "").partition(" ")[0],
            where=where,
        )


def read_distributions(folders: Iterable[str], *, where: str) -> Iterator[Part]:
    """Read Python's packages from the names of the folders that describe them, such as `rich-13.9.4.dist-info`."""
    for folder in folders:
        name, dash, version = folder.rpartition("/")[2].removesuffix(".dist-info").partition("-")
        if dash:
            yield Part(kind="pypi", name=name.lower().replace("_", "-"), version=version, where=where)


def write_sbom(inventory: Inventory, *, made_s: int) -> str:
    """
    Write the list.

    Args:
        inventory: what the image holds.
        made_s: the time it bears, in seconds since 1970.

    """
    parts = sorted(set(inventory.parts))
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, repr((inventory.name, inventory.version, parts)))}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(made_s, tz=UTC).isoformat().replace("+00:00", "Z"),
            "component": {"type": "operating-system", "name": inventory.name, "version": inventory.version, "bom-ref": "image"},
        },
        "components": [_component(part) for part in parts],
    }
    return json.dumps(content, indent=1) + "\n"


def _component(part: Part) -> dict[str, object]:
    component: dict[str, object] = {
        "type": "library",
        "bom-ref": f"{part.where}/{part.url}",
        "name": part.name,
        "version": part.version,
        "purl": part.url,
        "properties": [
            {"name": "windlass:where", "value": part.where},
            *([{"name": "windlass:source", "value": part.source}] if part.source else []),
        ],
    }
    if part.sha256:
        component["hashes"] = [{"alg": "SHA-256", "content": part.sha256}]
    return component


def file_list(entries: Iterable[tuple[str, str]]) -> str:
    """Write a tree's files, one a line: kind and mode, and the path; what two builds of the same inputs must agree on."""
    return "".join(f"{mode} {path}\n" for path, mode in sorted(entries))
