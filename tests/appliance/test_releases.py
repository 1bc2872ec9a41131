"""What becomes of a release on a real system when a process of it stands still, and when the power goes in a switch."""

import json
import time
from typing import Any, Final

import pytest

from tests.appliance.box import HOME, NAME, Box

pytestmark = pytest.mark.appliance

RELEASES: Final = f"{HOME}/releases"
RELEASE: Final = "/usr/lib/windlass/release"
SWITCH_WITHIN_S: Final = 1200.0


def configure(box: Box) -> None:
    """Have switches on this box watch for a shorter time, until it is switched off."""
    folder = "/run/systemd/system/windlass-switch@.service.d"
    lines = "Environment=WINDLASS_WATCH_S=30 WINDLASS_START_S=240 WINDLASS_TRIAL_S=400\\n"
    box.vm.shell(f"mkdir -p {folder} && printf '[Service]\\n{lines}' >{folder}/test.conf && systemctl daemon-reload")


def stage(box: Box, version: str) -> None:
    """Make another release of the current one's images."""
    folder = f"{HOME}/incoming/{version}"
    box.vm.shell(
        f"rm -rf {folder} && mkdir -p {HOME}/incoming && cp -RL {RELEASES}/current {folder} && rm -f {folder}/verdict"
        f" && sed -i 's/^WINDLASS_VERSION=.*/WINDLASS_VERSION={version}/' {folder}/release.env"
    )
    box.vm.shell(f"{RELEASE} stage {folder}", within_s=300)


def switch(box: Box, version: str) -> int:
    """Switch and return the exit code."""
    unit = f"windlass-switch@{version}.service"
    box.vm.shell.run(f"systemctl start {unit}", within_s=SWITCH_WITHIN_S)
    return int(box.vm.shell(f"systemctl show --property ExecMainStatus --value {unit}"))


def status(box: Box) -> dict[str, Any]:
    """Return what releases there are."""
    return dict(json.loads(box.vm.shell(f"{RELEASE} status --json")))


def is_whole(box: Box, version: str) -> bool:
    """Say whether controller and gateway of this release run, and it is what a reboot would start."""
    units = f"windlass-controller@{version}.service windlass-gateway@{version}.service"
    other = "windlass-gateway@*.service windlass-controller@*.service"
    listed = box.vm.shell(f"systemctl list-units --plain --no-legend --state=active {other} | wc -l")
    return box.vm.shell.run(f"systemctl is-active {units}").code == 0 and int(listed) >= 2 and status(box)["current"] == version


def test_a_gateway_that_stands_still_is_replaced(box: Box) -> None:
    """Systemd hears nothing of it any more, and starts it anew; so it does with one that was killed."""
    current = status(box)["current"]
    unit = f"windlass-gateway@{current}.service"
    process = "$(docker inspect --format '{{.State.Pid}}' $(docker ps --quiet --filter label=com.docker.compose.service=gateway))"
    restarts = int(box.vm.shell(f"systemctl show --property NRestarts --value {unit}"))
    box.vm.shell(f"kill -STOP {process}")
    deadline_s = time.monotonic() + 600
    while int(box.vm.shell(f"systemctl show --property NRestarts --value {unit}")) == restarts:
        assert time.monotonic() < deadline_s, "systemd has not noticed that the gateway stands still"
        time.sleep(5)
    box.vm.wait_for_health()

    assert "gave no sign of life" in box.vm.shell(f"journalctl --no-pager --output cat --unit {unit}")
    assert is_whole(box, current)


def test_a_power_cut_in_a_switch(box: Box) -> None:
    """Cut while one release takes over from another, the box comes up with one that is whole, and can be switched again."""
    configure(box)
    old = status(box)["current"]
    stage(box, "2.0")
    box.vm.shell("sync; systemctl start --no-block windlass-switch@2.0.service")
    box.vm.shell(
        "until journalctl --output cat --unit windlass-switch@2.0.service | grep -q 'takes over'; do sleep 0.2; done",
        within_s=900,
    )
    box.vm.cut()
    box.start()

    assert status(box)["current"] in (old, "2.0")
    assert is_whole(box, status(box)["current"])
    configure(box)
    assert 0 == switch(box, "2.0"), box.vm.shell("journalctl --no-pager --output cat --unit 'windlass-switch@*'")
    assert is_whole(box, "2.0")
    with box.caller() as caller:
        assert 200 == caller.complete(NAME, tokens=4).status_code
