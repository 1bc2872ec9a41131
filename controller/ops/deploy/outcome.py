"""What became of a switch, from what the box says afterwards. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from controller.ops.deploy.errors import DeployError, LockedError, TrialError, UnreachableBoxError, WentBackError

NOT_BEGUN: Final = 1
UNDER_WAY: Final = 4
"""What `/usr/lib/windlass/release switch` ends with where nothing was changed, or another switch runs."""


def running(status: Mapping[str, Any] | None) -> str:
    """Name the release that a box runs; empty if it runs none."""
    return str((status or {}).get("current") or "")


def previous(status: Mapping[str, Any] | None) -> str:
    """Name the release that a box ran before; empty if there is none to go back to."""
    return str((status or {}).get("previous") or "")


def verdict(status: Mapping[str, Any] | None, version: str) -> str:
    """Return what the box has found out about a release: `good`, or `bad` or `failed` with the reason; empty if nothing."""
    releases = (status or {}).get("releases")
    known = [one for one in releases if isinstance(one, dict)] if isinstance(releases, list) else []
    return next((str(one.get("verdict") or "") for one in known if one.get("version") == version), "")


def failure(status: Mapping[str, Any] | None, *, name: str, version: str, code: int) -> DeployError | None:
    """
    Say why a box does not run *version*; `None` if it does.

    Args:
        status: what the box says of its releases.
        name: what ssh calls it.
        version: what it was to switch to.
        code: what the switch ended with; 0 where nobody saw it end.

    """
    now = running(status)
    if now == version and code == 0:
        return None
    kind, text = _reason(version, code, verdict(status, version))
    return kind(f"{name}: {text}; {f'{now} goes on serving' if now else 'no release runs there'}")


def _reason(version: str, code: int, found: str) -> tuple[type[DeployError], str]:
    if code == UNDER_WAY:
        return LockedError, "another switch is under way there; run this again when it has ended"
    if found.startswith("bad") and code == NOT_BEGUN:
        forgive = f"`windlass release forgive {version}` as root there"
        return TrialError, f"{version} was found {found} before, and is tried again only after {forgive}"
    if found.startswith("bad"):
        return WentBackError, f"{version} ran, did not hold ({found}), and was left again"
    if found.startswith("failed"):
        return TrialError, f"{version} was tried beside the old release and did not do ({found})"
    if code == 0:
        return UnreachableBoxError, f"the switch to {version} has not come to its end; run this again"
    return DeployError, f"the switch to {version} ended with status {code}, its own words are above"
