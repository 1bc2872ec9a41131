"""What is said of boxes that cannot be reached, or that have strange names: with a program of the test's in the place of ssh."""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from controller.ops.deploy import fleet
from controller.ops.deploy.errors import DeployError, UnfitError, UnreachableBoxError
from controller.ops.deploy.link import Link
from controller.ops.deploy.steps import Follower, Return
from controller.ops.steps import console

CHANGED = """\
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Host key for 10.0.0.7 has changed and you have requested strict checking.
Host key verification failed."""
UNKNOWN = "No ED25519 host key is known for 10.0.0.7 and you have requested strict checking.\nHost key verification failed."

Ssh = Callable[[str], dict[str, str]]


@pytest.fixture
def ssh(tmp_path: Path) -> Ssh:
    """Return what makes a program of a script, and an environment in which it is ssh."""

    def make(script: str) -> dict[str, str]:
        program = tmp_path / "ssh"
        program.write_text(f"#!/bin/bash\n{script}\n")
        program.chmod(0o755)
        return {"WINDLASS_SSH": str(program)}

    return make


def say(words: str) -> str:
    """Return a script that says this and fails as ssh does."""
    return f"cat >&2 <<'END'\n{words}\nEND\nexit 255"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (CHANGED, "if it was set up anew, `ssh-keygen -R 10.0.0.7` forgets the old key; if not, beware"),
        (UNKNOWN, "connect once by hand with `ssh me@10.0.0.7` and compare its key"),
        ("ssh: connect to host 10.0.0.7 port 22: Connection refused", "no ssh server listens there"),
    ],
)
def test_what_to_do_follows_from_what_ssh_says(ssh: Ssh, words: str, hint: str) -> None:
    """A changed key and an unknown one are told apart, though ssh ends both with the same words."""
    with pytest.raises(UnreachableBoxError) as caught, Link("me@10.0.0.7", environ=ssh(say(words))):
        pass

    assert words.splitlines()[-1] in str(caught.value)
    assert hint in str(caught.value)


BOX = r"""
cd "$(dirname "$0")"
for command; do :; done
echo "$command" >>log
case $command in
    *"-- /var/lib/windlass") cat probe ;;
    *"-- windlass-switch@"*)
        cat >/dev/null
        printf 'machine\tx86_64\nuid\t0\nstatus\t{"current": "v1", "previous": "v2", "releases": []}' >probe
        if [ ! -e cut ]; then touch cut; exit 255; fi ;;
    *"bash -s"*) echo taken; cat >/dev/null ;;
esac
"""
"""A box that runs v2 after v1; the connection is cut once, while it switches."""


def test_a_cut_way_back_is_gone_once(ssh: Ssh, tmp_path: Path) -> None:
    """A connection that is lost while a box goes back is taken up again; it goes back one release, and breaks one lock."""
    (tmp_path / "probe").write_text('machine\tx86_64\nuid\t0\nstatus\t{"current": "v2", "previous": "v1", "releases": []}')
    with console.capture() as shown, Link("box", environ=ssh(BOX)) as link:
        Return(link, break_lock=True).go_back()
    log = (tmp_path / "log").read_text().splitlines()

    assert ["systemctl start --no-block windlass-switch@v1.service"] == [line for line in log if "start" in line]
    assert ["break", "no"] == [line.rpartition(" ")[2] for line in log if "@" in line and " 30 " in line]
    assert "box goes back from v2 to v1" in shown.get()
    assert "box runs v1" in shown.get()


def test_no_way_back_is_gone_while_a_system_is_on_trial(ssh: Ssh, tmp_path: Path) -> None:
    """What it did to the box would be held against the update of its operating system."""
    (tmp_path / "probe").write_text('machine\tx86_64\nuid\t0\ntrial\tyes\nstatus\t{"current": "v2", "previous": "v1"}')
    with Link("box", environ=ssh(BOX)) as link, pytest.raises(UnfitError, match="is on trial"):
        Return(link, break_lock=False).go_back()

    assert "systemctl start" not in (tmp_path / "log").read_text()


def test_a_connection_that_ends_at_once_is_lost(ssh: Ssh) -> None:
    """It is no error of its own kind that nobody has read the script; how early it ends is chance, so it ends often."""
    with Link("box", environ=ssh('for command; do :; done; [ "$command" = true ] || exit 255')) as link:
        for _ in range(30):
            with pytest.raises(UnreachableBoxError, match="the connection to box was lost"):
                Follower(link).follow("v1")


@pytest.mark.parametrize("code", [11, 12])
def test_a_full_disk_is_no_lost_connection(ssh: Ssh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Whichever end of rsync notices it first."""
    program = tmp_path / "rsync"
    program.write_text(f"#!/bin/sh\necho 'rsync: [receiver] write failed on x: No space left on device (28)'\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Link("box", environ=ssh("")) as link, pytest.raises(DeployError, match="the disk of box is full") as caught:
        link.copy(["x"], PurePosixPath("/y"))

    assert DeployError is type(caught.value)


def test_a_box_does_not_command_the_terminal(ssh: Ssh) -> None:
    """What it says is shown without what would move the cursor, set a title or clear the screen."""
    heard: list[str] = []
    with Link("box", environ=ssh(r"cat >/dev/null; printf 'a\033[2Jb\a\302\233c\td\n'")) as link:
        link.follow("follow", say=heard.append)

        assert ["a[2Jbc\td"] == heard
        assert "a[2Jbc\td\n" == link.run(["true"]).out


def test_brackets_are_no_colours(ssh: Ssh) -> None:
    """A name with brackets is shown as it is, and so is what a box says."""
    told = 'machine\tx86_64\nuid\t0\nstatus\t{"current": "v1", "releases": []}'
    names = ["me@[fe80::1%eth0]", "[/bold]"]
    with console.capture() as shown:
        fleet.each(names, lambda link: Follower(link).follow("v1"), link=lambda name: Link(name, environ=ssh(f"printf '{told}'")))

    assert all(f"{name} runs v1" in shown.get() for name in names)
