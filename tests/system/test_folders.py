"""Model folders: broken ones, new ones, changed ones, and ones that vanish while they serve."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.stack import PROJECT, Stack, output, wait_until
from tests.system.conftest import CHECKPOINT, MINI, NAME, Place
from tests.system.talk import PATIENCE_S, PROMPT, Caller, exists, leases, row, slowly, started_at, throttle, whole

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

Break = Callable[[Path], None]


def copied(folder: Path, source: Path) -> None:
    """Copy a model's files: what is about to be broken must not be shared."""
    for file in source.iterdir():
        shutil.copy2(file, folder / file.name)


def truncated_gguf(folder: Path) -> None:
    """Leave out the second half of the weights."""
    copied(folder, MINI)
    weights = next(folder.glob("*.gguf"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def gguf_of_nothing(folder: Path) -> None:
    """Write something else under the name of weights."""
    (folder / "model.gguf").write_bytes(b"this is no model" * 1000)


def empty_gguf(folder: Path) -> None:
    """Write no byte at all."""
    (folder / "model.gguf").write_bytes(b"")


def lying_safetensors(folder: Path) -> None:
    """Have the header promise more bytes than there are."""
    copied(folder, CHECKPOINT)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"][1])
    header[last]["data_offsets"][1] += 10_000_000
    text = json.dumps(header).encode()
    weights.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def huge_safetensors_header(folder: Path) -> None:
    """Have the header claim to be longer than any memory."""
    copied(folder, CHECKPOINT)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def pickled(folder: Path) -> None:
    """Offer weights in the form that runs code when it is opened."""
    copied(folder, CHECKPOINT)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def unknown_key(folder: Path) -> None:
    """Misspell a key of the manifest."""
    copied(folder, MINI)
    (folder / "model.toml").write_text("pined = true\n", encoding="utf-8")


def no_toml(folder: Path) -> None:
    """Write a manifest that is none."""
    copied(folder, MINI)
    (folder / "model.toml").write_text("pinned = = true", encoding="utf-8")


def no_weights(folder: Path) -> None:
    """Say much and bring nothing."""
    (folder / "model.toml").write_text('description = "soon"\n', encoding="utf-8")


BROKEN: dict[str, tuple[Break, str]] = {
    "truncated": (truncated_gguf, "gguf"),
    "no-model": (gguf_of_nothing, "gguf"),
    "empty": (empty_gguf, "gguf"),
    "lying": (lying_safetensors, "safetensors"),
    "huge-header": (huge_safetensors_header, "safetensors"),
    "pickled": (pickled, "pickle"),
    "unknown-key": (unknown_key, "pinned"),
    "no-toml": (no_toml, "model.toml"),
    "no-weights": (no_weights, ""),
    # The folder is well, its name is not.
    "With Spaces": (lambda folder: copied(folder, MINI), "name"),
    "Windlass-Mini": (lambda folder: copied(folder, MINI), NAME),
}
"""Folder → what is wrong with it, and a word that the complaint must have."""


@pytest.fixture(scope="module")
def broken(shared: Stack) -> Iterator[dict[str, str]]:
    """Drop all the broken folders in at once, and return what the stack says about each."""
    for name, (spoil, _) in BROKEN.items():
        arriving = shared.models / f".{name}"
        arriving.mkdir()
        spoil(arriving)
        arriving.rename(shared.models / name)

    def problems() -> dict[str, str]:
        return {found["folder"]: found["text"] for found in shared.api.get("/models")["problems"]}

    wait_until(
        lambda: BROKEN.keys() <= problems().keys() and not any("still being written" in text for text in problems().values()),
        "all broken folders are known as such",
        PATIENCE_S,
    )
    yield problems()
    for name in BROKEN:
        shutil.rmtree(shared.models / name)
    wait_until(lambda: not problems(), "the broken folders are forgotten", PATIENCE_S)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_a_problem_with_a_sentence(broken: dict[str, str], name: str) -> None:
    """Its row says what is wrong with it, in words that lead to what must be done."""
    assert BROKEN[name][1].lower() in broken[name].lower()


def test_broken_folders_are_no_models(broken: dict[str, str], caller: Caller) -> None:
    """Asking for one is asking for a model that is not there, and all others go on serving."""
    statuses = {name: caller.complete(name).status_code for name in BROKEN}
    answer = caller.complete(NAME)

    assert dict.fromkeys(BROKEN, 404) == statuses
    assert answer.status_code == 200


def test_broken_folders_degrade_health_and_show_in_check(broken: dict[str, str], world: Stack) -> None:
    """The operator is told by `/health`, and by `windlass check` with an exit code."""
    health = world.api.health()
    environ = {
        "WINDLASS_HOME": str(world.place.home),
        "WINDLASS_RUN": str(world.place.run),
        "WINDLASS_OWNER": world.place.owner,
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-m", "controller", "check", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
        env=environ,
    )

    found = json.loads(done.stdout)
    said = json.dumps(found["findings"])
    assert "degraded" == health["status"]
    assert all(any(name in reason for reason in health["reasons"]) for name in BROKEN)
    assert (1, False) == (done.returncode, found["ok"])
    assert all(name in said for name in BROKEN)


def test_a_folder_that_is_mended_is_served(world: Stack, caller: Caller) -> None:
    """A broken manifest put right makes the model appear, without a restart of anything."""
    folder = world.models / "mended"
    folder.mkdir()
    try:
        unknown_key(folder)
        wait_until(
            lambda: any("pinned" in found["text"] for found in world.api.get("/models")["problems"]),
            "it is a problem",
            PATIENCE_S,
        )
        (folder / "model.toml").write_text('memory = "100MiB"\n', encoding="utf-8")
        world.wait_for_models("mended")
        answer = caller.complete("mended")
    finally:
        shutil.rmtree(folder)
    wait_until(lambda: not exists(world.worker("mended")), "its container is gone", PATIENCE_S)

    assert answer.status_code == 200


def test_a_folder_removed_while_it_serves(world: Stack, caller: Caller, place: Place) -> None:
    """The running answer is delivered whole; then the model is unknown, and its container is removed."""
    gone = place("gone-soon")
    with slowly(world, gone), caller.stream(gone) as stream:
        stream.next()
        shutil.rmtree(world.models / gone)
        wait_until(lambda: not row(world, gone), "the model is not listed any more", PATIENCE_S)
        still_held = leases(world, gone)
        late = caller.complete(gone)
        throttle(world, gone, "2")
        stream.rest()
    wait_until(lambda: not exists(world.worker(gone)), "the container is removed", PATIENCE_S)

    assert still_held == 1
    assert whole(stream)
    assert (404, "model_not_found") == (late.status_code, late.json()["error"]["code"])


def test_a_changed_manifest_is_obeyed(world: Stack, caller: Caller, place: Place) -> None:
    """A model whose settings change is loaded anew with them, after the answer it was giving."""
    long = "The sea. " * 220
    changing = place("changing", 'memory = "100MiB"\ncontext = 512\n')
    too_long = caller.complete(changing, prompt=long)
    before = started_at(world, changing)
    with slowly(world, changing), caller.stream(changing, tokens=500) as stream:
        stream.next()
        manifest = world.models / changing / ".model.toml"
        manifest.write_text('memory = "110MiB"\ncontext = 1024\n', encoding="utf-8")
        manifest.rename(world.models / changing / "model.toml")
        wait_until(lambda: row(world, changing)["context_tokens"] == 1024, "the new settings are read", PATIENCE_S)
        throttle(world, changing, "2")
        stream.rest()
    now_fits = caller.complete(changing, prompt=long)
    limit = output(["docker", "inspect", "--format", "{{.HostConfig.Memory}}", world.worker(changing)])

    assert whole(stream)
    assert (400, 200) == (too_long.status_code, now_fits.status_code)
    assert before != started_at(world, changing)
    assert str(110 * 1024 * 1024) == limit


def test_new_weights_are_served_at_the_next_load(world: Stack, caller: Caller, place: Place) -> None:
    """Weights replaced in place are another model: the worker that mapped the old ones is not asked again."""
    replaced = place("replaced")
    text = caller.text(replaced)
    before = started_at(world, replaced)
    folder = world.models / replaced
    shutil.copyfile(next(MINI.glob("*.gguf")), folder / ".new")
    (folder / ".new").rename(folder / next(MINI.glob("*.gguf")).name)

    def again() -> bool:
        # While the new file is not known to be whole, the model is not registered, and callers are told so.
        answer = caller.complete(replaced)
        if answer.status_code != 200:
            assert answer.status_code == 404, answer.text
            return False
        return answer.json()["choices"][0]["text"] == text and started_at(world, replaced) != before

    wait_until(again, "it is loaded from the new file", PATIENCE_S)
    assert row(world, replaced)["state"] == "resident"


def test_a_context_that_was_asked_for_is_what_there_is(caller: Caller, place: Place) -> None:
    """The context that a manifest sets can be used to the last token, and no further."""
    short = place("short-context", 'memory = "100MiB"\ncontext = 64\n')
    answer = caller.complete(short, prompt=PROMPT, tokens=62, ignore_eos=True).json()
    beyond = caller.complete(short, prompt=PROMPT, tokens=65)

    assert (64, "length") == (answer["usage"]["total_tokens"], answer["choices"][0]["finish_reason"])
    assert (400, "context_length_exceeded") == (beyond.status_code, beyond.json()["error"]["code"])
