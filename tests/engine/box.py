"""
A box to deploy to, on this machine: a real ssh server, the real scripts of the box package, a container engine of its own.

Whoever logs in finds a root of their own laid over this machine's, in which everything may be written and nothing stays. Systemd
is stood in for, since none runs in there; the switch itself is shown on a booted image.
"""

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.engine.private_engine import PrivateEngine, private_engine
from tests.waiting import until

PROJECT = Path(__file__).parents[2]
STANDIN = Path(__file__).with_name("standin")
PACKAGE = PROJECT / "appliance" / "box" / "tree"
START_S = 20.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What root has on a Debian."""

_ROOT = r"""
set -euo pipefail
root=$1 engine=$2 data_mib=$3 below=$6
mount --make-rprivate /
mkdir "$root/space" "$root/merged"
# Of its own where it lies over the root that it is itself in.
if [ "$below" = / ]; then mount -t tmpfs -o size=64m space "$root/space"; fi
mkdir "$root/space/upper" "$root/space/work"
mount -t overlay -o "lowerdir=$below,upperdir=$root/space/upper,workdir=$root/space/work" overlay "$root/merged"
cd "$root/merged"
mount --rbind /proc proc; mount --rbind /dev dev; mount -t tmpfs run run
mkdir -p run/lock run/standin var/lib/windlass usr/lib/windlass usr/local/bin
: >run/docker.sock
mount --bind "$engine" run/docker.sock
mkdir -p ".${engine%/*}/data"
mount --bind "${engine%/*}/data" ".${engine%/*}/data"
mount -t tmpfs -o "size=${data_mib}m" data var/lib/windlass
cp "$5"/{systemctl,journalctl,standin-switch} usr/local/bin/
if [ "$below" = / ]; then
    cp -R "$4/usr/lib/windlass/." usr/lib/windlass/
    cp "$5/dpkg-query" usr/local/bin/
else
    # Nothing that is installed may start itself: this is no machine of its own.
    printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d
    chmod 755 usr/sbin/policy-rc.d
    cp -L /etc/resolv.conf etc/
fi
echo ready
exec chroot . sleep infinity
"""


class Wire:
    """What lies between this machine and the box: counts what goes to it, and does something in the middle when it is told to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.sent_bytes = 0
        self.after: tuple[int, Callable[[], object]] | None = None
        """At how many bytes to do what, once: nothing goes on meanwhile."""
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """End every connection, as a pulled cable or a closed lid would have it in the end."""
        for end in tuple(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let nothing through any more."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self._port))
            self._open |= {near, far}
            for source, target, counts in ((near, far, True), (far, near, False)):
                thread = threading.Thread(target=self._carry, args=(source, target, counts), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.sent_bytes += len(data) if counts else 0
                if self.after is not None and self.sent_bytes > self.after[0]:
                    (_, act), self.after = self.after, None
                    act()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open -= {source}
        source.close()


class StandInBox:
    """
    A box that runs.

    Attributes:
        name: what ssh calls it.
        ssh: the ssh that knows it.
        wire: what lies between.
        engine: its container engine.

    """

    name = "box"

    def __init__(self, folder: Path, *, wire: Wire, engine: PrivateEngine, holder: int) -> None:
        self.ssh = f"ssh -F {folder}/client"
        self.wire = wire
        self.engine = engine
        self._holder = holder

    def shell(self, script: str) -> str:
        """Run a script on it, beside ssh, and return what it wrote."""
        argv = [*enter(self._holder), "bash", "-c", script]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def fate(self, word: str, *, pause_s: float = 0.1) -> None:
        """Say how its next switch ends, and how long that takes."""
        self.shell(f"echo {word} {pause_s} >/run/standin/fate")


def enter(holder: int) -> list[str]:
    """Build the command that enters the box's root."""
    return ["nsenter", f"--target={holder}", "--mount", "--root", "--wd"]


@contextlib.contextmanager
def standin_box(image: str, *, data_mib: int = 400, below: Path = Path("/")) -> Iterator[StandInBox]:
    """
    Start a box whose engine has *image* and no other, and end it afterwards.

    Over this machine's own root it has our package; over another one, *below*, it is as stock as that is.
    """
    with tempfile.TemporaryDirectory(prefix="wl-box-") as text, contextlib.ExitStack() as ends:
        folder = Path(text)
        engine = ends.enter_context(private_engine(image))
        holder = ends.enter_context(_root(folder, engine, data_mib, below))
        port = ends.enter_context(_ssh_server(folder, holder))
        wire = Wire(port)
        ends.callback(wire.close)
        _write_client(folder, wire.port)
        yield StandInBox(folder, wire=wire, engine=engine, holder=holder)


@contextlib.contextmanager
def _root(folder: Path, engine: PrivateEngine, data_mib: int, below: Path) -> Iterator[int]:
    place = folder / "root"
    place.mkdir()
    argv = [
        "unshare", "--mount", "bash", "-c", _ROOT, "root",
        str(place), engine.url.removeprefix("unix://"), str(data_mib), str(PACKAGE), str(STANDIN), str(below),
    ]  # fmt: skip
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the box's root could not be laid out"
        yield process.pid
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextlib.contextmanager
def _ssh_server(folder: Path, holder: int) -> Iterator[int]:
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    login = folder / "login"
    login.write_text(f'#!/bin/sh\nexport PATH={PATH}\nexec {" ".join(enter(holder))} sh -c "${{SSH_ORIGINAL_COMMAND:-exit 1}}"\n')
    login.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "server").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/sshd.pid\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        f"ForceCommand {login}\nMaxStartups 100\nMaxSessions 100\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "sshd.log").open("wb") as log:
        server = shutil.which("sshd") or "/usr/sbin/sshd"
        process = subprocess.Popen([server, "-D", "-e", "-f", folder / "server"], stdout=log, stderr=log, start_new_session=True)

    def listens() -> bool:
        assert process.poll() is None, (folder / "sshd.log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    try:
        asyncio.run(until("the ssh server listens", listens, deadline_s=START_S))
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _write_client(folder: Path, port: int) -> None:
    key = (folder / "host.pub").read_text()
    (folder / "known").write_text("".join(f"{name} {key}" for name in ("box", "twin", "stranger")))
    common = f"  HostName 127.0.0.1\n  Port {port}\n  User root\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
    (folder / "client").write_text(
        f"Host box twin\n{common}  UserKnownHostsFile {folder}/known\n  HostKeyAlias box\n  StrictHostKeyChecking yes\n"
        f"Host unknown\n{common}  UserKnownHostsFile {folder}/nobody\n  StrictHostKeyChecking yes\n"
        f"Host off\n  HostName 127.0.0.1\n  Port 1\n"
    )
