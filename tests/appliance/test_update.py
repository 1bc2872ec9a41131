"""
Updates of the operating system, on a machine: what is refused, what is cut short, what does not answer, and what stays.

The tests go on from one another, as the days of one box do: at the end of each the machine is up, and what it knows is there.
"""

import json
import time
from pathlib import Path
from typing import Final

import pytest

from tests.appliance.box import HOME, NAME, Box
from tests.appliance.bundles import Bundles
from tests.appliance.disk import Disk, make_stick, run
from tests.appliance.figures import TARGET

pytestmark = [pytest.mark.appliance, pytest.mark.timeout(3600)]

UPDATE: Final = "/usr/lib/windlass/update"
INCOMING: Final = f"{HOME}/incoming"
INSTALL_WITHIN_S: Final = 1200.0
AGAIN_WITHIN_S: Final = 1500.0
MODEL: Final = "kept-across-updates"
STICK: Final = "900M"


@pytest.fixture(scope="module")
def bundles(image: Disk, disks: Path) -> Bundles:
    """Return a maker of updates to the image."""
    folder = disks / "bundles"
    folder.mkdir()
    return Bundles.of(image, folder, target=TARGET)


def bring(box: Box, bundle: Path) -> str:
    """Copy a bundle to the machine and return where it lies there."""
    box.vm.shell.put(bundle, f"{INCOMING}/{bundle.name}")
    return f"{INCOMING}/{bundle.name}"


def last(box: Box) -> dict[str, str]:
    """Return how the last update ended."""
    told: dict[str, str] = json.loads(box.vm.shell(f"cat {HOME}/update/last.json"))
    return told


def version(box: Box) -> str:
    """Return which system runs."""
    return box.vm.shell("sed -n s/^IMAGE_VERSION=//p /etc/os-release")


def slot(box: Box) -> str:
    """Return from where it runs."""
    return box.vm.shell("/usr/lib/windlass/slot current")


def choice(box: Box) -> dict[str, str]:
    """Return what the boot loader will read."""
    lines = box.vm.shell("grub-editenv /boot/efi/EFI/BOOT/grubenv list").splitlines()
    return dict(line.split("=", 1) for line in lines)


def wait_for_word(box: Box, result: str) -> dict[str, str]:
    """Wait, over restarts, until the last update has ended so."""
    deadline_s = time.monotonic() + AGAIN_WITHIN_S
    seen = ""
    while time.monotonic() < deadline_s:
        box.vm.shell.hang_up()
        done = box.vm.shell.run(f"cat {HOME}/update/last.json")
        seen = done.out or seen
        if done.code == 0 and json.loads(done.out)["result"] == result:
            return dict(json.loads(done.out))
        time.sleep(5)
    raise AssertionError(
        f"waited {AGAIN_WITHIN_S:.0f} s for an update that has {result}; the last word: {seen}\n{box.vm.report()}"
    )


def ask(box: Box) -> str:
    """Have the built-in model say something, always the same."""
    with box.caller() as caller:
        return caller.text(NAME, prompt="Tell me about the sea.", tokens=12)


def test_what_is_not_for_this_box_is_not_taken(box: Box, bundles: Bundles) -> None:
    """Corrupt, signed by a stranger, made for another board: refused, told, and the box goes on as it was."""
    before = choice(box)
    refused = {
        bundles.small("7-stranger", foreign=True): "signature",
        bundles.small("7-board", compatible="windlass-pc-amd64"): 'made for "windlass-pc-amd64"',
        bundles.small("7-corrupt", corrupt=True): "could not be installed",
    }
    for bundle, why in refused.items():
        done = box.vm.shell.run(f"{UPDATE} {bring(box, bundle)}", within_s=INSTALL_WITHIN_S)
        assert (1, True) == (done.code, why in done.err), f"{bundle.name}: {done}"

    now = choice(box)
    assert (before["ORDER"], before["A_OK"], "0") == (now["ORDER"], now["A_OK"], now["A_TRY"])
    assert "A" == slot(box)
    assert "1" == now["A_SURE"]
    assert "B_SURE=0" in box.vm.shell("grub-editenv /boot/efi/EFI/BOOT/grubenv list").split()


def test_a_power_cut_while_the_slot_is_written_starts_the_old_system(box: Box, bundles: Bundles) -> None:
    """Half a system is in the other slot, and nobody tries to start it."""
    box.place_model(MODEL, "")
    was = version(box)
    there = bring(box, bundles.system("8"))
    box.vm.shell(f"systemd-run --unit=update-test --collect {UPDATE} --no-reboot {there}")
    deadline_s = time.monotonic() + INSTALL_WITHIN_S
    while "Copying image" not in box.vm.shell("journalctl --no-pager --boot --unit update-test | tail -3"):
        assert time.monotonic() < deadline_s, box.vm.report()
        time.sleep(1)
    time.sleep(5)

    box.vm.cut()
    box.start()

    assert "unfinished" == wait_for_word(box, "unfinished")["result"]
    assert ("A", was) == (slot(box), version(box))
    assert "0" == choice(box)["B_OK"]


def test_a_system_that_never_answers_gives_way_to_the_old_one_by_itself(box: Box, bundles: Bundles) -> None:
    """It boots, and there is no Windlass in it. Nobody touches the machine, and the old system is back and says why."""
    was, answer = version(box), ask(box)
    sick = bundles.system("9-sick", {"/usr/lib/systemd/system/windlass.service": None})
    box.vm.shell(f"echo CONFIRM_WITHIN_S=180 >{HOME}/etc/update.env && sync")

    box.vm.shell.run(f"{UPDATE} {bring(box, sick)}", within_s=INSTALL_WITHIN_S)
    told = wait_for_word(box, "failed")

    assert ("9-sick", was) == (told["version"], told["runs"])
    assert "not healthy within 180 s: the gateway does not answer" in told["text"]
    box.vm.wait_for_health()
    assert ("A", "0", "1") == (slot(box), choice(box)["B_OK"], choice(box)["A_SURE"])
    assert answer == ask(box)
    again = box.vm.shell.run(f"{UPDATE} {INCOMING}/{sick.name}")
    assert (1, True) == (again.code, "--again tries it once more" in again.err)
    box.vm.shell(f"rm {HOME}/etc/update.env {INCOMING}/*.raucb")


def test_a_good_system_comes_from_a_stick_and_stays(box: Box, bundles: Bundles, disks: Path) -> None:
    """Plugged in while the box runs: installed, started, confirmed; models, keys and answers are there; the stick tells."""
    answer, host_key = ask(box), box.vm.shell("cat /var/lib/windlass/etc/ssh/ssh_host_ed25519_key.pub")
    good = bundles.system("10")
    stick = make_stick(disks / "stick.img", {good.name: good}, size=STICK)

    with box.vm.monitor() as monitor:
        monitor.plug("stick", stick.path)
        told = wait_for_word(box, "confirmed")
        deadline_s = time.monotonic() + AGAIN_WITHIN_S
        while "runs here" not in box.vm.shell("journalctl --boot --no-pager --unit 'windlass-usb@*'"):
            assert time.monotonic() < deadline_s, box.vm.report()
            time.sleep(2)
        monitor.pull("stick")

    word = run("mtype", "-i", str(stick.path), f"::/windlass-update-{box.vm.shell('hostname')}.txt")
    assert "Version 10 runs here; it was confirmed." in word
    assert ("10", "10") == (told["version"], told["runs"])
    box.vm.wait_for_health()
    assert ("B", "B A", "1", "0") == (slot(box), choice(box)["ORDER"], choice(box)["B_SURE"], choice(box)["B_TRY"])
    assert answer == ask(box)
    assert host_key == box.vm.shell("cat /var/lib/windlass/etc/ssh/ssh_host_ed25519_key.pub")
    assert {NAME, MODEL} <= {model["name"] for model in box.api.get("/models")["models"]}
    inside = box.inspect()
    assert ("ok", []) == (inside["database"]["integrity"], inside["database"]["moved_aside"])
