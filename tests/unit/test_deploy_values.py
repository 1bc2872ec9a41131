"""What is decided about a deploy: which layers, which boxes, whether one fits, and what became of it."""

import hashlib
import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.ops.deploy import commands, fit, inventory, layers, outcome
from controller.ops.deploy.cargo import compose_release
from controller.ops.deploy.commands import Route
from controller.ops.deploy.errors import (
    DeployError,
    LockedError,
    TrialError,
    UnreachableBoxError,
    UnusableError,
    WentBackError,
)
from controller.ops.deploy.host import Host, read_host
from controller.ops.deploy.layers import Image, Packed
from controller.ops.targets import CPU, ORIN
from controller.units import GIB, MIB

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
TAG = "windlass/controller:1"
ROUTE = Route(name="box", control="/tmp/wl-1/ssh")
FIT = Host(
    machine="x86_64",
    engine="26.1.5+dfsg1",
    compose="2.26.1",
    rsync=True,
    package="1.0",
    memory_bytes=4 * GIB,
    data_free_bytes=GIB,
    engine_free_bytes=GIB,
)


def image(*stack: str, tag: str = TAG, architecture: str = "amd64") -> Image:
    """Return an image of these layers."""
    return Image(tag=tag, layers=stack, architecture=architecture)


def test_chain_ids_are_those_of_the_specification() -> None:
    """The first stack is its layer's digest, each further one the hash of the stack below and the layer."""
    second = f"sha256:{hashlib.sha256(f'{A} {B}'.encode()).hexdigest()}"

    assert [A, second] == layers.chains([A, B])
    assert [] == layers.chains([])


def test_a_layer_on_another_stack_is_sent() -> None:
    """The engine keeps a layer for each stack it lies on: having it elsewhere does not help."""
    assert (B, C) == layers.missing_layers([image(A, B, C)], [image(A, C), image(B)])
    assert (C,) == layers.missing_layers([image(A, B, C)], [image(A, B)])


def test_a_shared_layer_is_sent_once() -> None:
    """Two images that lack the same layer get it in one file."""
    assert (A, B, C) == layers.missing_layers([image(A, B), image(A, C, tag="other")], [])


def test_whole_images_have_all_their_layers() -> None:
    """An engine that wants whole images gets every layer, whatever it has."""
    assert (A, B) == layers.missing_layers([image(A, B)], [image(A, B)], whole=True)


STACKS = st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=4, unique=True)


@given(wanted=st.lists(STACKS, max_size=4), there=st.lists(STACKS, max_size=4))
def test_what_is_sent_is_enough_and_not_more(wanted: list[list[str]], there: list[list[str]]) -> None:
    """Every stack that a wanted image needs is there or its top layer was sent, and no layer is sent that no stack lacks."""
    sent = layers.missing_layers([image(*stack) for stack in wanted], [image(*stack) for stack in there])
    stacks = {tuple(stack[:height]) for stack in there for height in range(1, len(stack) + 1)}
    needed = {tuple(stack[:height]) for stack in wanted for height in range(1, len(stack) + 1)}

    assert {stack[-1] for stack in needed - stacks} == set(sent)
    assert len(set(sent)) == len(sent)


def test_an_image_of_the_same_name_and_other_content_is_missing() -> None:
    """What an image is called does not say what is in it."""
    assert (image(A),) == layers.missing_images([image(A)], [image(B)])
    assert () == layers.missing_images([image(A)], [image(B, tag="x"), image(A)])


def test_the_manifest_names_layers_that_are_not_sent() -> None:
    """The engine counts layers by the manifest, and opens only those that it lacks; sums are of those that are sent."""
    found = json.loads(layers.write_manifest([Packed(tag=TAG, config="c.json", layers=(A, B))]))

    assert [{"Config": "c.json", "RepoTags": [TAG], "Layers": [f"{'a' * 64}.tar", f"{'b' * 64}.tar"]}] == found
    assert f"{'b' * 64}  {'b' * 64}.tar\n" == layers.write_sums([B])
    assert f"{TAG}\n" == layers.write_tags([Packed(tag=TAG, config="c.json", layers=(A, B))])


def test_boxes_are_taken_in_their_order() -> None:
    """From HOST and from a file, with comments, each once."""
    text = "# the hall\nbox3   # by the door\n\nuser@10.0.0.7\nbox\n"

    assert ("box", "box2", "box3", "user@10.0.0.7") == inventory.read_hosts("box, box2,", text)
    assert ("me@[fe80::1%eth0]",) == inventory.read_hosts("me@[fe80::1%eth0]")


@pytest.mark.parametrize("hosts", ["", " , ", "-oProxyCommand=x", "box;reboot", "a b", "$(id)", "box/../x", "box:22", "fe80::1"])
def test_what_is_no_box_is_refused(hosts: str) -> None:
    """Nothing named, or something that a shell, ssh or rsync would take for more than a name."""
    with pytest.raises(UnusableError):
        inventory.read_hosts(hosts)


def test_several_boxes_are_told_apart() -> None:
    """After a failure everybody knows which are done and which were not touched."""
    assert "done: a; failed: b; untouched: c, d" == inventory.say_done(["a"], "b", ["c", "d"])
    assert "failed: a" == inventory.say_done([], "a", [])


NAMES = st.sampled_from(["current", "previous", "releases", "version"])
PROBE = f"""motd of the box
machine\taarch64
system\tUbuntu 22.04.5 LTS
l4t\t# R36 (release), REVISION: 4.7, GCID: 1, BOARD: generic, EABI: aarch64, DATE: x
uid\t1000
sudo\tyes
memory_kib\t7802000
rsync\trsync  version 3.2.7
package\t1.0
data_free\t 1000
data_disk\t66
engine\t28.2.2
store\t[["driver-type","io.containerd.snapshotter.v1"]]
engine_free\t500
engine_disk\t67
arrived\t{"a" * 64}.tar 4096
compose\t2.35.1
image\t{TAG} windlass/controller:local|arm64|{A} {B}
image\t|arm64|{C}
loading\tyes
switching\twindlass-switch@v1-2.service
trial\tyes
status\t{{"current": "v1", "previous": "", "releases": []}}
"""


def test_a_box_is_read_from_its_probe() -> None:
    """Every line has its place; lines that are none of ours are left out."""
    host = read_host(PROBE)

    assert "arm64" == host.architecture
    assert "36.4.7" == host.l4t
    assert (False, True) == (host.root, host.sudo)
    assert 7802000 * 1024 == host.memory_bytes
    assert host.whole_images
    assert {f"{'a' * 64}.tar": 4096} == host.arrived
    assert (1000, 500, False) == (host.data_free_bytes, host.engine_free_bytes, host.one_disk)
    assert [TAG, "windlass/controller:local", ""] == [one.tag for one in host.images]
    assert (A, B) == host.images[1].layers
    assert "v1-2" == host.switching
    assert (True, True) == (host.loading, host.on_trial)
    assert (False, False) == (read_host("").loading, read_host("").on_trial)
    assert "v1" == outcome.running(host.status)


FACTS = sorted({line.partition("\t")[0] for line in PROBE.splitlines()})
NONSENSE = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner)
)


@given(
    st.text(),
    st.sampled_from(FACTS),
    st.text() | NONSENSE.map(json.dumps) | st.integers(0, 5000).map("9".__mul__) | st.just("[" * 100_000),
)
def test_nonsense_is_an_unknown_box(text: str, fact: str, said: str) -> None:
    """Whatever comes instead of a probe, or as one of its facts, is read without an error."""
    host = read_host(f"{fact}\t{said}\n{text}")

    assert "" == outcome.verdict(host.status, "v1")


def found(host: Host, **changes: object) -> list[str]:
    """Return what speaks against a box."""
    wish = {"name": "box", "target": CPU, "images": [image(A)], "tags": [TAG], **changes}
    return list(fit.problems(host, **wish))  # type: ignore[arg-type]


def changed(**changes: object) -> Host:
    """Return a box that fits but for this."""
    fields = {name: getattr(FIT, name) for name in Host.__dataclass_fields__}
    return Host(**(fields | changes))  # type: ignore[arg-type]


def test_a_fitting_box_has_no_problem() -> None:
    """Nothing is said of a box that can take the release."""
    assert [] == found(FIT)
    assert [] == list(fit.room_problems(FIT, sent_bytes=100 * MIB))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"root": False}, "sudo without a password"),
        ({"engine": "", "engine_error": "no socket"}, "no container engine answers (no socket): make provision HOST=box"),
        ({"engine": "19.03.8"}, "wanted 20.10 or newer"),
        ({"compose": ""}, "no Compose: make provision"),
        ({"rsync": False}, "no rsync: make provision"),
        ({"on_trial": True}, "its operating system was updated and is on trial: run this again"),
        ({"package": ""}, "windlass-box is not installed: make provision"),
        ({"machine": "aarch64"}, f"{TAG} is for amd64 and the box is arm64"),
        ({"memory_bytes": 512 * MIB}, "512 MiB of memory: wanted 1 GiB"),
    ],
)
def test_what_speaks_against_a_box(changes: dict[str, object], said: str) -> None:
    """One sentence says what is missing and what to do."""
    assert [True] == [said in problem for problem in found(changed(**changes))]


def test_images_for_another_jetpack_are_refused() -> None:
    """An Orin's images go to a box with their release of JetPack alone."""
    assert "no JetPack" in found(FIT, target=ORIN)[0]
    assert "runs JetPack 6.2.1" in found(changed(l4t="36.4.7"), target=ORIN)[0]
    assert [] == found(changed(l4t="39.2.0"), target=ORIN)


def test_a_jetson_gets_no_other_images_unasked() -> None:
    """Where nobody has named the kind of box, this machine's own is meant; who wants a Jetson without its GPU says so."""
    jetson = changed(l4t="39.2.0")

    assert ["DEVICE=orin or DEVICE=thor" in problem for problem in found(jetson, guessed=True)] == [True]
    assert [] == found(jetson)
    assert [] == found(jetson, target=ORIN, guessed=True)
    assert [] == found(FIT, guessed=True)


def test_an_image_that_the_box_made_itself_will_do() -> None:
    """What is not here must be there, and then it is not sent."""
    assert [] == found(changed(images=(image(A),)), images=[])
    assert "neither here nor on the box" in found(FIT, images=[])[0]


def test_layers_need_their_room_twice_on_one_disk() -> None:
    """As they came and as the engine keeps them, containerd twice; on two disks each needs its own."""
    assert [] != list(fit.room_problems(FIT, sent_bytes=GIB // 2))
    assert [] == list(fit.room_problems(changed(one_disk=False), sent_bytes=GIB // 2))
    assert "of its container engine" in next(fit.room_problems(changed(one_disk=False, engine_free_bytes=0), sent_bytes=1))
    assert [] == list(fit.room_problems(changed(data_free_bytes=0), sent_bytes=0))
    assert [] == list(fit.room_problems(FIT, sent_bytes=300 * MIB))
    assert [] != list(fit.room_problems(changed(whole_images=True), sent_bytes=300 * MIB))


def test_what_has_come_needs_no_room_again() -> None:
    """A copy that was cut goes on where the disk holds the rest and what the engine makes of it, and no more."""
    sent_bytes = 512 * MIB
    half_way = changed(data_free_bytes=fit.SPARE_BYTES + sent_bytes + MIB)

    assert [] != list(fit.room_problems(half_way, sent_bytes=sent_bytes))
    assert [] == list(fit.room_problems(half_way, sent_bytes=sent_bytes, arrived_bytes=sent_bytes - MIB))
    assert [] != list(fit.room_problems(half_way, sent_bytes=sent_bytes, arrived_bytes=sent_bytes - 2 * MIB))


def status(now: str, **verdicts: str) -> dict[str, object]:
    """Return what a box says of its releases."""
    return {"current": now, "releases": [{"version": name, "verdict": said} for name, said in verdicts.items()]}


@pytest.mark.parametrize(
    ("said", "code", "kind", "text"),
    [
        (status("v1", v2="failed: no answer"), 1, TrialError, "did not do (failed: no answer); v1 goes on serving"),
        (status("v1", v2="bad: it ended"), 3, WentBackError, "did not hold (bad: it ended), and was left again; v1 goes on"),
        (status("v1", v2="bad: it ended"), 0, WentBackError, "was left again"),
        (status("v1", v2="bad: it ended"), 1, TrialError, "tried again only after `windlass release forgive v2` as root there"),
        (status("v1"), 4, LockedError, "another switch"),
        (status("v1"), 0, UnreachableBoxError, "not come to its end; run this again"),
        (status("", v2=""), 1, DeployError, "ended with status 1, its own words are above; no release runs there"),
        (status("v2"), 70, DeployError, "status 70"),
        (None, 0, UnreachableBoxError, "no release runs there"),
    ],
)
def test_what_became_of_a_switch(said: dict[str, object] | None, code: int, kind: type[DeployError], text: str) -> None:
    """What the operator has to do about it is the error's kind; what serves now is always told."""
    failed = outcome.failure(said, name="box", version="v2", code=code)

    assert kind is type(failed)
    assert text in str(failed)


def test_a_switch_that_went_well_is_no_failure() -> None:
    """The release runs, and the switch ended well or nobody saw it end."""
    assert outcome.failure(status("v2", v2="good"), name="box", version="v2", code=0) is None
    assert "v1" == outcome.previous({"previous": "v1"})


def test_every_kind_of_failure_has_a_status_of_its_own() -> None:
    """A program can tell them apart."""
    kinds = [DeployError, *DeployError.__subclasses__()]

    assert list(range(1, 8)) == sorted(kind.status for kind in kinds)


def test_fewer_images_are_another_release() -> None:
    """A release of chosen engines is called by them, and holds their tags alone."""
    made = compose_release(
        "0.1.0-5-gabc",
        {"WINDLASS_IMAGE_CONTROLLER": TAG},
        settings={"WINDLASS_USE_GPU": "false"},
        files={"box.yaml": "x"},
        chosen=["transformers", "llama-cpp"],
    )

    assert "0.1.0-5-gabc-llama-cpp-transformers" == made.version
    assert made.files["release.env"].startswith(f"WINDLASS_VERSION={made.version}\n")
    assert (TAG,) == made.tags


def test_commands_are_these() -> None:
    """Every command that acts on a box, as it is run."""
    ssh = (
        "ssh -o ControlPath=/tmp/wl-1/ssh -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3 -o BatchMode=yes"
    )
    shown = [
        commands.remote(ROUTE, commands.make_folders("v1")),
        commands.copy(ROUTE, ["a.tar"], PurePosixPath("/var/lib/windlass/incoming/deploy/layers"), progress=True),
        commands.script(ROUTE, "/var/lib/windlass/incoming/deploy", "v1"),
        commands.remote(ROUTE, commands.stage("v1")),
        commands.remote(ROUTE, commands.switch("v1")),
        commands.remote(ROUTE, commands.tidy()),
        *(commands.remote(ROUTE, argv) for argv in commands.put(PurePosixPath("/in/daemon.json"), "/etc/docker/daemon.json")),
    ]
    incoming = "/var/lib/windlass/incoming/deploy"

    assert [
        [*ssh.split(), "--", "box", f"mkdir --parents {incoming}/layers {incoming}/v1/images {incoming}/v1/release"],
        [
            "rsync", "--recursive", "--times", "--chmod=D755,F644", "--inplace", "--compress", "--timeout=60", "--stats",
            "--info=progress2",
            f"--rsh={ssh}", "--", "a.tar", f"box:{incoming}/layers/",
        ],
        [*ssh.split(), "--", "box", f"bash -s -- {incoming} v1"],
        [*ssh.split(), "--", "box", f"/usr/lib/windlass/release stage {incoming}/v1/release"],
        [*ssh.split(), "--", "box", "systemctl start --no-block windlass-switch@v1.service"],
        [*ssh.split(), "--", "box", f"rm --recursive --force {incoming}"],
        [*ssh.split(), "--", "box", "install --mode=0644 /in/daemon.json /etc/docker/daemon.json.windlass"],
        [*ssh.split(), "--", "box", "sync /etc/docker/daemon.json.windlass"],
        [
            *ssh.split(), "--", "box",
            "mv --force --no-target-directory /etc/docker/daemon.json.windlass /etc/docker/daemon.json",
        ],
        [*ssh.split(), "--", "box", "sync /etc/docker"],
    ] == shown  # fmt: skip


def test_sudo_is_asked_for_nothing() -> None:
    """Who is not root there runs everything by sudo, which must not ask, rsync's other end too."""
    route = Route(name="me@[fe80::1%eth0]", control="/tmp/c", sudo=True, ssh=("ssh", "-F", "mine"))

    assert ["me@fe80::1%eth0", "sudo -n systemctl start --no-block windlass-switch@v1.service"] == commands.remote(
        route, commands.switch("v1")
    )[-2:]
    assert "--rsync-path=sudo -n rsync" in commands.copy(route, ["a"], PurePosixPath("/x"), progress=False)
    assert "me@[fe80::1%eth0]:/x/" == commands.copy(route, ["a"], PurePosixPath("/x"), progress=False)[-1]
    assert "bash -s -- x" == commands.script(route, "x", as_root=False)[-1]


def test_only_the_first_connection_may_ask() -> None:
    """A person is asked at most once, and never where nobody sits."""
    assert "BatchMode=no" in commands.connect(ROUTE, may_ask=True)
    assert "BatchMode=yes" in commands.connect(ROUTE, may_ask=False)
    assert ["-O", "exit", "--", "box"] == commands.disconnect(ROUTE)[-4:]
