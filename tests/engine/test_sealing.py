"""What a worker can and cannot do, seen from inside a container that our driver made."""

import json
import re
import stat
from typing import Any

import pytest

from controller.drivers.docker import DockerDriver
from controller.errors import EngineError
from controller.spec import GROUP_GID, WORKER_UID, ModelName
from tests.engine.conftest import MODEL, NEIGHBOUR
from tests.fakeworker.place import Place
from tests.waiting import until

pytestmark = pytest.mark.engine

SCRATCH = {"/tmp", "/dev/shm", "/dev/mqueue"}
"""Memory of the container's own, counted against its limit."""
OWN = {"/run/worker", "/kv"}

FIND_WRITABLE = """
import json, os, stat
found, seen = [], set()
for folder, names, files in os.walk("/"):
    # /proc has the process's own settings, which no capability and no right of anybody else hangs on.
    names[:] = [name for name in names if os.path.join(folder, name) not in ("/proc", "/sys")]
    try:
        probe = os.path.join(folder, ".probe")
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY))
        os.unlink(probe)
        found.append(folder)
        names[:] = []
    except OSError:
        pass
    for name in files:
        path = os.path.join(folder, name)
        mode = os.lstat(path).st_mode
        if (stat.S_ISREG(mode) or stat.S_ISBLK(mode)) and os.access(path, os.W_OK):
            found.append(path)
print(json.dumps(found))
"""
FIND_WRITABLE_KERNEL = """
import json, os, stat
found = []
for top in ("/proc", "/sys"):
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if not (folder == "/proc" and (name.isdigit() or name in ("self", "thread-self")))]
        for name in files:
            path = os.path.join(folder, name)
            try:
                # Files that the engine masks are the null device, and may well be written.
                if stat.S_ISREG(os.lstat(path).st_mode):
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    found.append(path)
            except OSError:
                pass
print(json.dumps(found))
"""
REACH_OUT = """
import json, socket
said = {}
for what, family, address in (
    ("host", socket.AF_INET, ("172.17.0.1", 22)),
    ("cloud metadata", socket.AF_INET, ("169.254.169.254", 80)),
    ("resolver", socket.AF_INET, ("1.1.1.1", 53)),
    ("outside, IPv6", socket.AF_INET6, ("2606:4700:4700::1111", 53)),
):
    try:
        with socket.socket(family) as probe:
            probe.settimeout(2)
            probe.connect(address)
        said[what] = "connected"
    except OSError as exc:
        said[what] = exc.strerror
print(json.dumps(said))
"""


def python(place: Place, program: str) -> Any:  # noqa: ANN401 -- whatever it printed as JSON
    """Run a program inside the worker's container and return what it printed."""
    code, output = place.run_inside(MODEL, "python3", "-I", "-c", program)
    assert code == 0, output
    return json.loads(output)


def read(place: Place, path: str) -> str:
    """Read a file inside the worker's container."""
    code, output = place.run_inside(MODEL, "cat", path)
    assert code == 0, output
    return output


def process_status(place: Place) -> dict[str, str]:
    """Return what the kernel says about the worker's own process."""
    return dict(line.split(":\t", 1) for line in read(place, "/proc/1/status").splitlines() if ":\t" in line)


async def test_there_is_no_network_but_loopback(worker: Place) -> None:
    """The only interface is `lo`, and there is no route to anywhere."""
    interfaces = [line.split(":")[0].strip() for line in read(worker, "/proc/net/dev").splitlines()[2:]]
    routes = read(worker, "/proc/net/route").splitlines()[1:]

    # Tunnels that a kernel module puts into every namespace are down and lead nowhere; an address is what would make one of use.
    assert "lo" in interfaces
    assert not [name for name in interfaces if re.match(r"eth|en|wl|veth|docker|br", name)]
    assert not routes


async def test_nothing_outside_can_be_reached(worker: Place) -> None:
    """Neither the host, nor the cloud's metadata, nor a resolver, nor anything by IPv6 can be connected to."""
    said = python(worker, REACH_OUT)

    assert "connected" not in said.values(), said


async def test_it_writes_only_where_it_may(worker: Place) -> None:
    """In the whole tree, files can be made in the run and KV directories and in its own memory, and nothing else changed."""
    found = set(python(worker, FIND_WRITABLE))

    assert found >= OWN | {"/tmp"}
    assert found <= OWN | SCRATCH


async def test_it_changes_nothing_of_the_kernel(worker: Place) -> None:
    """No file of the kernel's in /proc and /sys can be opened for writing."""
    found = python(worker, FIND_WRITABLE_KERNEL)

    # Writing there asks to be told about pressure, which every process may: it changes nothing for others.
    assert not [path for path in found if not path.startswith("/proc/pressure/")]


async def test_scratch_memory_runs_nothing(worker: Place) -> None:
    """What is written into /tmp cannot be executed, set no user and hold no device."""
    mounts = {line.split()[1]: line.split()[3].split(",") for line in read(worker, "/proc/mounts").splitlines()}

    for target in ("/tmp", "/dev/shm"):
        assert {"rw", "noexec", "nosuid", "nodev"} <= set(mounts[target]), target
    assert "ro" in mounts["/"]
    assert "ro" in mounts["/model"]


async def test_it_has_no_capability_and_cannot_gain_one(worker: Place) -> None:
    """Every set of capabilities is empty, no set-user-ID program gives any, and system calls are filtered."""
    status = process_status(worker)

    assert {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


async def test_it_is_nobody_in_particular(worker: Place) -> None:
    """The worker runs as its own user and the shared group, and in no other group."""
    status = process_status(worker)

    assert set(status["Uid"].split()) == {str(WORKER_UID)}
    assert set(status["Gid"].split()) == {str(GROUP_GID)}
    assert set(status["Groups"].split()) <= {str(GROUP_GID)}


async def test_it_cannot_become_root(worker: Place) -> None:
    """Neither asking for it nor a set-user-ID program makes it root."""
    code, output = worker.run_inside(MODEL, "su", "-c", "id")

    assert code != 0
    assert "uid=0" not in output


async def test_it_sees_its_own_model_and_no_other(worker: Place) -> None:
    """Its own weights can be read and not be changed; the neighbour's files are nowhere in its tree."""
    folders = ("/model", "/kv", "/run", "/tmp", "/mnt", "/srv", "/var", "/home")
    found = worker.run_inside(MODEL, "grep", "--recursive", "--files-with-matches", "--no-messages", "the neighbour's", *folders)[
        1
    ]

    assert not found
    assert read(worker, "/model/weights") == "its own weights"
    assert worker.run_inside(MODEL, "rm", "/model/weights")[0] != 0
    assert NEIGHBOUR not in read(worker, "/proc/self/mountinfo")


async def test_it_sees_no_other_process(worker: Place) -> None:
    """Its process is the first of its own namespace; whatever else runs on the machine is invisible."""
    seen = python(
        worker,
        "import json, os; print(json.dumps([open(f'/proc/{p}/cmdline').read() for p in os.listdir('/proc') if p.isdigit()]))",
    )

    assert len(seen) == 2
    assert all("python3" in line for line in seen)


async def test_the_engine_is_out_of_reach(worker: Place) -> None:
    """No socket of the engine, of containerd or of the controller is in its tree."""
    code, output = worker.run_inside(MODEL, "find", "/", "-xdev", "-type", "s", "-not", "-path", "/proc/*")

    assert code in {0, 1}
    assert [line for line in output.splitlines() if line.endswith(".sock")] in ([], ["/run/worker/worker.sock"])
    for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd"):
        assert worker.run_inside(MODEL, "test", "-e", path)[0] == 1, path


async def test_devices_are_the_harmless_ones(worker: Place) -> None:
    """There is no disk, no memory, no GPU unless asked for: only null, zero, random and terminals."""
    listed = python(worker, "import json, os; print(json.dumps(os.listdir('/dev')))")

    terminals, streams = {"ptmx", "pts", "tty"}, {"fd", "stderr", "stdin", "stdout"}
    links = {"core"}  # to /proc/kcore, which the engine masks
    assert set(listed) <= {"full", "null", "random", "urandom", "zero", "mqueue", "shm"} | terminals | streams | links


async def test_others_do_not_get_at_its_socket(worker: Place, driver: DockerDriver) -> None:
    """The socket is for the worker and the shared group, if the worker makes it as a real one does."""
    model = ModelName("grouponly")
    await driver.create(worker.spec(model, "--socket-mode", "660"))
    await driver.start(model)

    async def listens() -> bool:
        return "listening" in await driver.logs(model, tail=10)

    await until("its socket is open", listens)  # which cannot be asked: whoever runs the tests may not be in the group
    shown = worker.socket(model).stat()

    assert (shown.st_uid, shown.st_gid, stat.S_IMODE(shown.st_mode)) == (WORKER_UID, GROUP_GID, 0o660)


async def test_the_image_cannot_open_the_seal(worker: Place) -> None:
    """The engine itself shows every part of the seal, whatever the image says."""
    shown = worker.engine.inspect_container(worker.container(MODEL))
    host, config = shown["HostConfig"], shown["Config"]

    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["Privileged"], host["CapDrop"]) == ("none", True, False, ["ALL"])
    assert (host["CapAdd"] or [], host["SecurityOpt"], host["IpcMode"]) == ([], ["no-new-privileges"], "private")
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["Memory"] == host["MemorySwap"] == 64 * 1024 * 1024
    assert host["PidsLimit"] == 32
    assert {"max-size", "max-file"} <= set(host["LogConfig"]["Config"])
    assert config["User"] == f"{WORKER_UID}:{GROUP_GID}"
    assert config["Labels"]["windlass.owner"] == worker.owner
    assert {key for key in config["Labels"] if key.startswith("windlass.")} >= {
        "windlass.model",
        "windlass.spec",
        "windlass.memory",
    }


async def test_a_directory_that_is_not_there_is_named(driver: DockerDriver, place: Place) -> None:
    """The engine makes no directory of its own invention in place of a missing one: the error names it."""
    spec = place.spec(MODEL)
    (place.root / "models" / MODEL).rmdir()

    with pytest.raises(EngineError, match=str(place.root / "models" / MODEL)):
        await driver.create(spec)

    assert not (place.root / "models" / MODEL).exists()


async def test_a_name_that_is_taken_by_somebody_else_is_an_error(driver: DockerDriver, place: Place) -> None:
    """A container of that name without our label is neither used nor touched."""
    made = place.engine.create_container(
        place.image, name=place.container(MODEL), labels={"windlass.owner": f"{place.owner}-other"}
    )

    with pytest.raises(EngineError, match=place.container(MODEL)):
        await driver.create(place.spec(MODEL))
    await driver.remove(MODEL)

    assert place.engine.inspect_container(made["Id"])["State"]["Status"] == "created"
