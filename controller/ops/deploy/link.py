"""
The only place where ssh and rsync are run.

One connection is opened and shared by everything that follows, so that a person is asked once. A connection that is lost is an
error of its own kind: whatever was under way is begun again with the same command.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from time import monotonic, sleep
from typing import ClassVar, Final, Protocol, Self

from controller.ops.deploy import commands
from controller.ops.deploy.commands import Route
from controller.ops.deploy.errors import DeployError, UnreachableBoxError
from controller.ops.steps import console

SCRIPTS: Final = Path(__file__).parent
SSH_LOST: Final = 255
RSYNC_LOST: Final = frozenset({10, 12, 20, 30, 35, 255})
"""No socket, a broken stream, a signal, a silence, a connection that is never made, and what ssh says itself."""
_CONTROLS: Final = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})
"""What a terminal would obey is left out of what a box says: nobody knows yet whose box it is."""
_SENT: Final = re.compile(r"Total bytes sent: ([\d,.]+)")
# Where ssh says two of these, the first one is meant: a changed key has failed its verification, too.
_HINTS: Final = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "if it was set up anew, `ssh-keygen -R {host}` forgets the old key; if not, beware",
    "Host key verification failed": "connect once by hand with `ssh {name}` and compare its key",
    "Permission denied": "give it your key with `ssh-copy-id {name}`, or start an agent that has it",
    "Could not resolve": "look at its name, or name its address",
    "timed out": "is it on, and on this network?",
    "No route to host": "is it on, and on this network?",
    "Connection refused": "it is on, and no ssh server listens there",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a command on the box ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """What it said at last, for an error."""
        return (self.err.strip() or self.out.strip()).rpartition("\n")[2]


class Holder(Protocol):
    """What holds the lock of a box."""

    @property
    def lives(self) -> bool:
        """Whether it still runs there, as far as this end knows."""
        ...

    def read(self) -> str:
        """Return the next line it writes; empty if it has ended."""
        ...


class Link:
    """A connection to one box."""

    rehearses: ClassVar[bool] = False
    """Whether commands are only shown."""

    def __init__(self, name: str, *, environ: Mapping[str, str]) -> None:
        """Keep the name; nothing is connected yet."""
        self._folder = tempfile.TemporaryDirectory(prefix="wl-")  # short: a socket's path has a limit
        ssh = tuple(environ.get("WINDLASS_SSH", "").split()) or ("ssh",)
        self.route = Route(name=name, ssh=ssh, control=f"{self._folder.name}/ssh")

    def __enter__(self) -> Self:
        """Connect."""
        try:
            self.open()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the connection, whatever state it is in."""
        self.close()
        self._folder.cleanup()

    def open(self) -> None:
        """
        Connect.

        Raises:
            UnreachableBoxError: with what ssh said, and what to do about it.

        """
        argv = commands.connect(self.route, may_ask=sys.stdin.isatty())
        # Its errors go into a file: what stays in the background keeps what it was given open.
        with (Path(self._folder.name) / "err").open("w+", encoding="utf-8", errors="replace") as said:
            code = subprocess.run(argv, stdin=None, stdout=subprocess.DEVNULL, stderr=said, check=False).returncode
            said.seek(0)
            words = said.read().strip()
        if code:
            raise UnreachableBoxError(f"{self.route.name} cannot be reached: {_explain(words, self.route.name)}")

    def reopen(self, *, within_s: float) -> None:
        """Connect anew, as often as it takes for some time."""
        deadline_s = monotonic() + within_s
        while True:
            self.close()
            try:
                self.open()
            except UnreachableBoxError:
                if monotonic() > deadline_s:
                    raise
                sleep(1)
            else:
                return

    def close(self) -> None:
        """End the shared connection."""
        subprocess.run(commands.disconnect(self.route), capture_output=True, check=False)
        Path(self.route.control).unlink(missing_ok=True)

    def become_root(self) -> None:
        """Run everything from here on by sudo."""
        self.route = replace(self.route, sudo=True)

    def run(self, argv: Sequence[str]) -> Answer:
        """Run a command on the box as root, and return how it ended."""
        return self._run(commands.remote(self.route, argv), "")

    def must(self, what: str, argv: Sequence[str]) -> str:
        """
        Run a command that has to succeed, and return what it wrote.

        Raises:
            DeployError: with its last words.

        """
        answer = self.run(argv)
        if answer.code:
            raise DeployError(f"{what} on {self.route.name} ended with status {answer.code}: {answer.last_words}")
        return answer.out

    def script(self, name: str, *arguments: str, as_root: bool = True) -> Answer:
        """Run one of our scripts on the box."""
        return self._run(commands.script(self.route, *arguments, as_root=as_root), script_text(name))

    def follow(self, name: str, *arguments: str, say: Callable[[str], None]) -> int:
        """Run one of our scripts on the box, hand on every line as it comes, and return its status."""
        with self._talk(name, *arguments) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):  # what it has not read is written once more
                process.stdin.close()
            for line in process.stdout:
                say(line.rstrip("\n").translate(_CONTROLS))
        return self._lost(process.returncode, "")

    @contextlib.contextmanager
    def hold(self, name: str, *arguments: str, beat_s: float) -> Iterator[Holder]:
        """Run one of our scripts on the box for as long as this lasts, and write it a line now and then."""
        with self._talk(name, *arguments) as process:
            held = Held(process, beat_s=beat_s)
            try:
                yield held
            finally:
                held.end()

    def copy(self, sources: Sequence[str], folder: PurePosixPath) -> int:
        """
        Copy into a folder of the box, show how far it is, and return how many bytes went over the line.

        Raises:
            UnreachableBoxError: the connection was lost; what has come stays.
            DeployError: the box could not write it.

        """
        argv = commands.copy(self.route, sources, folder, progress=console.is_terminal)
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            out = _pass_on(process.stdout.fileno())
        err = "; ".join(line for line in out.replace("\r", "\n").splitlines() if line.startswith("rsync"))
        if process.returncode and "No space left" in err:  # what rsync ends with then is chance
            raise DeployError(f"the disk of {self.route.name} is full: free some and run this again; what has come stays there")
        if process.returncode in RSYNC_LOST:
            raise UnreachableBoxError(f"the connection to {self.route.name} was lost while copying: {err}")
        if process.returncode:
            raise DeployError(f"rsync to {self.route.name} ended with status {process.returncode}: {err}")
        return sum(int(re.sub(r"\D", "", sent)) for sent in _SENT.findall(out))

    def _run(self, argv: Sequence[str], text: str) -> Answer:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, errors="replace", check=False)
        self._lost(done.returncode, done.stderr)
        return Answer(code=done.returncode, out=done.stdout.translate(_CONTROLS), err=done.stderr.translate(_CONTROLS))

    def _talk(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        argv = commands.script(self.route, *arguments)
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, and its status says why
            process.stdin.write(script_text(name))
            process.stdin.flush()
        return process

    def _lost(self, code: int, err: str) -> int:
        if code == SSH_LOST:
            raise UnreachableBoxError(f"the connection to {self.route.name} was lost: {_explain(err.strip(), self.route.name)}")
        return code


class Held:
    """A script that runs on the box until its connection ends."""

    def __init__(self, process: subprocess.Popen[str], *, beat_s: float) -> None:
        """Begin to write it a line now and then."""
        self._process = process
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, args=(beat_s,), daemon=True)
        self._beating.start()

    def read(self) -> str:
        """Return the next line it writes; empty if it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n").translate(_CONTROLS)

    @property
    def lives(self) -> bool:
        """Whether it still runs there, as far as this end knows."""
        return self._process.poll() is None

    def end(self) -> None:
        """Let it end."""
        self._over.set()
        self._beating.join()
        with contextlib.suppress(BrokenPipeError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _beat(self, beat_s: float) -> None:
        while not self._over.wait(beat_s):
            assert self._process.stdin is not None
            try:
                self._process.stdin.write("\n")
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError):
                return


def script_text(name: str) -> str:
    """Read one of our scripts."""
    return (SCRIPTS / f"{name}.sh").read_text(encoding="utf-8")


def _pass_on(source: int) -> str:
    """Show on a terminal what comes, as it comes, and return all of it."""
    found = bytearray()
    while chunk := os.read(source, 65536):
        found += chunk
        if console.is_terminal and b"Number of files" not in found:
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
    return found.decode(errors="replace")


def _explain(words: str, name: str) -> str:
    host = name.rpartition("@")[2].strip("[]")
    hint = next((hint.format(name=name, host=host) for said, hint in _HINTS.items() if said in words), "")
    last = words.rpartition("\n")[2] or "ssh did not say why"
    return f"{last} — {hint}" if hint else last
