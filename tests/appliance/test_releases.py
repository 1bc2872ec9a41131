"""Releases on a real system: systemd watches them, one takes over from another and cuts no answer, and a bad one gives back."""

import json
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.appliance.box import HOME, NAME, Box, FirstBoot
from tests.appliance.conftest import MachineMaker
from tests.system.talk import whole

pytestmark = pytest.mark.appliance

RELEASES: Final = f"{HOME}/releases"
RELEASE: Final = "/usr/lib/windlass/release"
SWITCH_WITHIN_S: Final = 1200.0
STREAM_TOKENS: Final = 900
NONSENSE: Final = ('command: ["serve"]', 'command: ["nonsense"]')
"""A controller that ends as soon as it starts."""
SHORT_LIVED: Final = (
    'command: ["gateway"]',
    'entrypoint: ["sh", "-c", "python3 -m controller gateway & sleep 90; kill -9 $$!; exit 7"]\n    command: []',
)
"""A gateway that serves for a while."""


def configure(box: Box, *, watch_s: int = 30) -> None:
    """Have switches on this box watch for a shorter time, until it is switched off."""
    folder = "/run/systemd/system/windlass-switch@.service.d"
    lines = f"Environment=WINDLASS_WATCH_S={watch_s} WINDLASS_START_S=240 WINDLASS_TRIAL_S=400\\n"
    box.vm.shell(f"mkdir -p {folder} && printf '[Service]\\n{lines}' >{folder}/test.conf && systemctl daemon-reload")


def stage(box: Box, version: str, *, change: tuple[str, str] = ("", "")) -> None:
    """Make another release of the current one's images, with one text of its Compose file replaced by another."""
    folder = f"{HOME}/incoming/{version}"
    box.vm.shell(
        f"rm -rf {folder} && mkdir -p {HOME}/incoming && cp -RL {RELEASES}/current {folder} && rm -f {folder}/verdict"
        f" && sed -i 's/^WINDLASS_VERSION=.*/WINDLASS_VERSION={version}/' {folder}/release.env"
    )
    text = box.vm.shell(f"cat {folder}/appliance.yaml")
    assert change[0] in text
    box.vm.shell(f"cat >{folder}/appliance.yaml", stdin=text.replace(*change) + "\n")
    box.vm.shell(f"{RELEASE} stage {folder}")


def switch(box: Box, version: str) -> int:
    """Switch and return the exit code."""
    unit = f"windlass-switch@{version}.service"
    box.vm.shell.run(f"systemctl start {unit}", within_s=SWITCH_WITHIN_S)
    return int(box.vm.shell(f"systemctl show --property ExecMainStatus --value {unit}"))


def status(box: Box) -> dict[str, Any]:
    """Return what releases there are."""
    return dict(json.loads(box.vm.shell(f"{RELEASE} status --json")))


def verdicts(box: Box) -> dict[str, str]:
    """Return what was found of each release."""
    return {one["version"]: one["verdict"] for one in status(box)["releases"]}


def is_whole(box: Box, version: str) -> bool:
    """Say whether controller and gateway of this release run, and it is what a reboot would start."""
    units = f"windlass-controller@{version}.service windlass-gateway@{version}.service"
    other = "windlass-gateway@*.service windlass-controller@*.service"
    listed = box.vm.shell(f"systemctl list-units --plain --no-legend --state=active {other} | wc -l")
    return box.vm.shell.run(f"systemctl is-active {units}").code == 0 and int(listed) >= 2 and status(box)["current"] == version


def worker_started(box: Box) -> str:
    """Return when the engine last started the built-in model's container."""
    return box.vm.shell(f"docker inspect --format '{{{{.State.StartedAt}}}}' windlass-{NAME}")


def test_a_release_takes_over_under_a_stream(box: Box) -> None:
    """A good release takes over while an answer is on its way: it is delivered whole, and the model stays in memory."""
    configure(box)
    old = status(box)["current"]
    stage(box, "2.0")
    with box.caller() as caller:
        caller.text(NAME, tokens=4)
        before = worker_started(box)
        box.vm.shell(f"docker update --cpus 0.05 windlass-{NAME}")
        with caller.stream(NAME, tokens=STREAM_TOKENS) as stream:
            stream.next()
            code = switch(box, "2.0")
            box.vm.shell(f"docker update --cpus 2 windlass-{NAME}")
            stream.rest()
        after = caller.complete(NAME, tokens=4)

    assert 0 == code, box.vm.shell("journalctl --no-pager --output cat --unit 'windlass-switch@*'")
    assert whole(stream)
    assert 200 == after.status_code
    assert before == worker_started(box)
    assert is_whole(box, "2.0")
    assert ("2.0", old, "") == tuple(status(box)[name] for name in ("current", "previous", "switching"))


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


def test_a_release_that_does_not_start_changes_nothing(box: Box) -> None:
    """Its trial fails beside the one that serves, and says why."""
    current = status(box)["current"]
    stage(box, "3.0-bad", change=NONSENSE)
    code = switch(box, "3.0-bad")

    assert 1 == code
    assert verdicts(box)["3.0-bad"].startswith("failed: ")
    assert "No such command" in box.vm.shell("journalctl --no-pager --output cat --unit windlass-switch@3.0-bad.service")
    assert is_whole(box, current)
    assert "" == box.vm.shell("docker ps --all --quiet --filter label=com.docker.compose.project=windlass-trial")


def test_a_release_that_ends_after_a_while_gives_back(box: Box) -> None:
    """It passed its trial and took over; when it ends by itself the old one is back, and it is not started again by itself."""
    current = status(box)["current"]
    configure(box, watch_s=180)
    stage(box, "4.0-late", change=SHORT_LIVED)
    # Known as good, it is not tried before: with processors of software a trial may take as long as it lives.
    box.vm.shell(f"printf 'good\\n' >{RELEASES}/4.0-late/verdict")
    code = switch(box, "4.0-late")
    again = box.vm.shell.run(f"{RELEASE} switch 4.0-late")

    assert 3 == code
    assert verdicts(box)["4.0-late"].startswith("bad: ")
    assert (1, True) == (again.code, "forgive" in again.err)
    assert is_whole(box, current)
    box.vm.wait_for_health()


def test_rollback(box: Box) -> None:
    """The previous release takes over in the same way, and the one it relieved is what another rollback would bring."""
    configure(box)
    before = status(box)
    done = box.vm.shell.run(f"{RELEASE} rollback", within_s=SWITCH_WITHIN_S)

    assert 0 == done.code, done.err
    assert is_whole(box, before["previous"])
    assert before["current"] == status(box)["previous"]


def test_a_power_cut_in_a_switch(first_boot: FirstBoot, put_together: MachineMaker, disks: Path) -> None:
    """Cut while one release takes over from another, the box comes up with one that is whole, and can be switched again."""
    box = Box(vm=put_together(first_boot.disk.layer(disks / "release-cut.qcow2")), key=first_boot.key)
    box.vm.authorise()
    box.start()
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
