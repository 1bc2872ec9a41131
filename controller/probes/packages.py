"""Which version of a Debian package is installed, from dpkg's own file: the controller's container has no dpkg of the host."""

import re
from typing import Final

from controller.probes.system import System

STATUS_FILE: Final = "/var/lib/dpkg/status"
_INSTALLED: Final = " installed"


def version_of(system: System, package: str) -> str:
    """Return the version of a package; empty if it is not installed, or the box knows no dpkg."""
    return versions(system, re.escape(package)).get(package, "")


def versions(system: System, pattern: str) -> dict[str, str]:
    """Return the versions of all packages whose whole name is like *pattern*."""
    text = system.read(STATUS_FILE) or ""
    found = {}
    for match in re.finditer(rf"^Package: ({pattern})$", text, re.MULTILINE):
        end = text.find("\n\n", match.start())
        fields = dict(line.split(": ", 1) for line in text[match.start() : end].splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(_INSTALLED):
            found[match[1]] = fields.get("Version", "")
    return found
