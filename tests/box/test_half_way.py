"""A start that stops half way says so and is not the last one, since nobody could log in to mend it."""

import os
import subprocess
from pathlib import Path

from bench.stack import PROJECT

TREE = PROJECT / "appliance" / "os" / "tree-uefi"


def test_every_console_hears_what_went_wrong_and_the_machine_starts_again(tmp_path: Path) -> None:
    """It waits before it does, and is what systemd starts in place of a shell."""
    for folder in ("tools", "facts/sys/class/tty/console", "facts/dev"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "facts/sys/class/tty/console/active").write_text("tty0 ttyS0\n")
    for name, script in {
        "mountpoint": "exit 32",
        "journalctl": "echo Dependency failed for the data partition.",
        "sleep": f'echo sleep "$@" >>{tmp_path}/done',
        "systemctl": f'echo systemctl "$@" >>{tmp_path}/done; [ $# -gt 1 ]',
    }.items():
        (tmp_path / "tools" / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / "tools" / name).chmod(0o755)
    unit = (TREE / "etc/systemd/system/emergency.service").read_text()
    command = unit.split("ExecStart=")[1].strip()
    environ = {"PATH": f"{tmp_path}/tools:{os.environ['PATH']}", "WINDLASS_FACTS": str(tmp_path / "facts")}
    ended = subprocess.run([TREE / command.lstrip("/")], env=environ, capture_output=True, text=True, check=False)

    assert 0 == ended.returncode, ended.stderr
    for console in ("tty0", "ttyS0"):
        told = (tmp_path / "facts/dev" / console).read_bytes().decode()
        assert "starts again in 10 minutes" in told
        assert '"data" of its disk is missing' in told
        assert "  Dependency failed for the data partition.\r\n" in told
    assert ["sleep 600", "systemctl reboot", "systemctl reboot --force --force"] == (tmp_path / "done").read_text().splitlines()
