"""A shell on a machine, by OpenSSH and a key of the test's own."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NAME: Final = "box"
"""What the machine is called in the configuration file that is made for it."""
WITHIN_S: Final = 180.0
"""For a command that takes moments where processors are not made of software."""
_NO_CONNECTION: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


class Remote:
    """The SSH side of a machine."""

    def __init__(self, folder: Path, *, port: int, user: str = "root") -> None:
        """Make a key and a configuration; nothing is connected yet."""
        self.key = folder / "key"
        self.config = folder / "ssh_config"
        """For `ssh -F`, `scp -F` and `rsync -e`, and for whatever else is to find the machine under its name."""
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(self.key)]
        subprocess.run(argv, check=True, capture_output=True)
        self.config.write_text(_CONFIG.format(name=NAME, port=port, user=user, folder=folder), encoding="utf-8")

    @property
    def public_key(self) -> str:
        """The line for `authorized_keys`."""
        return self.key.with_suffix(".pub").read_text(encoding="ascii")

    def argv(self, command: str, *options: str) -> list[str]:
        """Return the command that runs *command* on the machine."""
        return ["ssh", "-F", str(self.config), *options, NAME, command]

    def run(self, command: str, *, within_s: float = WITHIN_S, stdin: str = "") -> Done:
        """Run a command in the machine's shell and return how it ended."""
        done = subprocess.run(
            self.argv(command), capture_output=True, text=True, errors="replace", check=False, timeout=within_s, input=stdin
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def __call__(self, command: str, *, within_s: float = WITHIN_S, stdin: str = "") -> str:
        """Run a command that must go well, and return what it printed."""
        done = self.run(command, within_s=within_s, stdin=stdin)
        assert done.code == 0, f"{command!r} ended with {done.code}: {done.out.strip()}\n{done.err.strip()}"
        return done.out.strip()

    def wait(self, *, within_s: float, while_true: Callable[[], bool]) -> None:
        """Return when the machine lets us in."""
        deadline_s = time.monotonic() + within_s
        while (done := self.run("true")).code:
            assert done.code == _NO_CONNECTION, f"wanted a shell, got {done}"
            assert while_true(), "the machine is off"
            assert time.monotonic() < deadline_s, f"waited {within_s:.0f} s for a shell: {done.err.strip()}"
            time.sleep(1)

    def put(self, source: Path, target: str, *, within_s: float = 600.0) -> None:
        """Copy a file or a folder to the machine."""
        self._copy(str(source), f"{NAME}:{target}", within_s)

    def fetch(self, source: str, target: Path, *, within_s: float = 600.0) -> None:
        """Copy a file or a folder from the machine."""
        self._copy(f"{NAME}:{source}", str(target), within_s)

    def hang_up(self) -> None:
        """Forget the connection that commands share: the machine it led to is gone."""
        subprocess.run(["ssh", "-F", str(self.config), "-O", "exit", NAME], capture_output=True, check=False)
        self.config.with_name("shared.sock").unlink(missing_ok=True)

    def _copy(self, source: str, target: str, within_s: float) -> None:
        argv = ["scp", "-F", str(self.config), "-q", "-r", source, target]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=within_s)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}"


_CONFIG: Final = """\
Host {name}
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/key
    IdentitiesOnly yes
    HostKeyAlias {name}
    UserKnownHostsFile {folder}/known_hosts
    StrictHostKeyChecking accept-new
    BatchMode yes
    ConnectTimeout 10
    ServerAliveInterval 10
    ServerAliveCountMax 6
    ControlMaster auto
    ControlPath {folder}/shared.sock
    ControlPersist 60
    LogLevel ERROR
"""
