"""Engine files on the real engine: a checkpoint dropped in, built in sealed containers, served, and never half made."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.stack import Stack, output, place_model, stack, wait_until
from controller.errors import AnswerError
from controller.spec import LABEL_BUILD, LABEL_OWNER
from tests.system.conftest import CHECKPOINT, CONFIG, MINI
from tests.system.talk import AS_ROOT, Caller

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

BUILT_WITHIN_S = 400.0
"""Long, since a build has the least claim on the cores: on a busy machine it takes what nobody else wants."""
BUILDS = '[builds]\nmemory = "800MiB"\nkeep_free = "64MiB"\nmax_failures = 2\n'
GGUF = 'engine = "llama-cpp"\nmemory = "100MiB"\n'


@pytest.fixture(scope="module")
def smithy() -> Iterator[Stack]:
    """Run a stack with room for a build."""
    with stack("build", budget="900MiB", config=CONFIG + BUILDS) as running:
        yield running


def build(running: Stack, model: str) -> dict[str, Any]:
    """Return what is told of a model's build."""
    rows = running.api.get("/builds")["builds"]
    return next((row for row in rows if row["model"] == model), {"state": "unknown"})


def is_built(running: Stack, model: str) -> bool:
    """Say whether a model is served from its engine file; fail where its build has failed."""
    row = build(running, model)
    assert row["state"] != "failed", row
    return row["state"] == "built"


def said(running: Stack, event: str) -> dict[str, Any]:
    """Return the last line of this kind that the controller has written."""
    lines = (json.loads(line) for line in running.logs("controller").splitlines() if f'"{event}"' in line)
    return next(reversed(list(lines)), {"matches": None})


def jobs(running: Stack) -> list[str]:
    """Return the containers of builds."""
    labels = ["--filter", f"label={LABEL_OWNER}={running.place.owner}", "--filter", f"label={LABEL_BUILD}"]
    return output(["docker", "ps", "--all", "--quiet", *labels]).split()


def engine_files(running: Stack) -> list[str]:
    """Return the names in the folder of the engine files."""
    folder = Path(running.place.home) / "engines"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_checkpoint_is_built_and_served(smithy: Stack) -> None:
    """It is registered at once, refused with a time to come again while it is built, and answers when it is."""
    place_model(CHECKPOINT, smithy.models / "converted", manifest=GGUF + 'quantization = "Q8_0"\n')
    smithy.wait_for_models("converted")
    caller = Caller(smithy.url)
    early = caller.complete("converted")
    wait_until(lambda: is_built(smithy, "converted"), "it is built", BUILT_WITHIN_S)
    row = next(row for row in smithy.api.get("/models")["models"] if row["name"] == "converted")
    text = caller.text("converted")
    caller.close()

    assert (503, True) == (early.status_code, int(early.headers.get("retry-after", "0")) > 0)
    assert "buil" in early.json()["error"]["message"]
    assert text
    assert ("llama-cpp", "q8_0", "model.toml says q8_0") == (row["engine"], row["build"]["quantization"], row["build"]["why"])
    assert [row["build"]["fingerprint"]] == engine_files(smithy)
    assert not jobs(smithy)


def test_a_gguf_is_served_while_a_smaller_one_is_built(smithy: Stack) -> None:
    """Its callers are never refused: before it is built, while, and after."""
    caller, stop, refused = Caller(smithy.url), threading.Event(), []
    place_model(MINI, smithy.models / "smaller", manifest='memory = "100MiB"\nquantization = "q4_0"\n')
    smithy.wait_for_models("smaller")

    def ask() -> None:
        while not stop.is_set():
            answer = caller.complete("smaller", tokens=4)
            if answer.status_code != 200:
                refused.append(answer.text)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        wait_until(lambda: is_built(smithy, "smaller"), "it is built", BUILT_WITHIN_S)
        row = next(row for row in smithy.api.get("/models")["models"] if row["name"] == "smaller")
        after = caller.text("smaller")
    finally:
        stop.set()
        asking.join()
        caller.close()

    assert not refused
    assert after
    assert row["weights_bytes"] < next(MINI.glob("*.gguf")).stat().st_size


def test_a_spoilt_engine_file_is_never_served(smithy: Stack) -> None:
    """One byte changed: it is put away before anybody is answered from it, and built anew."""
    if not engine_files(smithy):
        test_a_checkpoint_is_built_and_served(smithy)
    fingerprint = build(smithy, "converted")["fingerprint"]
    folder = Path(smithy.place.home) / "engines" / fingerprint
    manifest = folder / "manifest.json"
    before = manifest.read_text(encoding="utf-8")
    smithy.api.post("/unload_model", {"model": "converted", "force": True})
    weights = next(folder.glob("*.gguf"))
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0xFF]))
    output([*smithy.compose, "restart", "--timeout", "10", "controller"])
    wait_until(lambda: said(smithy, "engine_file.verified")["matches"] is False, "it is found out", BUILT_WITHIN_S)
    wait_until(lambda: manifest.exists() and manifest.read_text(encoding="utf-8") != before, "it is made anew", BUILT_WITHIN_S)
    wait_until(lambda: is_built(smithy, "converted"), "it is built", BUILT_WITHIN_S)
    after = manifest.read_text(encoding="utf-8")
    caller = Caller(smithy.url)
    text = caller.text("converted")
    caller.close()

    assert text
    assert before.split('"files"')[1] == after.split('"files"')[1], "the same source gives the same bytes"


@pytest.mark.parametrize("after_s", [0.2, 1.0, 2.0, 4.0])
def test_a_killed_controller_goes_on_with_its_build(smithy: Stack, after_s: float) -> None:
    """Killed at any moment, it adopts the step that runs or begins anew; the file is whole, and nothing is left beside it."""
    name = f"killed-{int(after_s * 10)}"
    arriving = smithy.models / f".{name}"
    shutil.copytree(CHECKPOINT, arriving)  # times of change of its own make it another source, and so a build of its own
    (arriving / "tokenizer.json").touch()
    (arriving / "model.toml").write_text(GGUF + 'quantization = "q4_k_m"\n', encoding="utf-8")
    arriving.rename(smithy.models / name)
    wait_until(lambda: build(smithy, name)["state"] == "building", "it is being built", BUILT_WITHIN_S)
    threading.Event().wait(after_s)
    smithy.kill_controller()
    wait_until(lambda: is_built(smithy, name), "it is built", BUILT_WITHIN_S)
    caller = Caller(smithy.url)
    text = caller.text(name)
    caller.close()

    assert text
    assert not [path for path in engine_files(smithy) if path.startswith(".building-")]
    assert not jobs(smithy)


def test_a_checkpoint_that_cannot_be_converted_rests_with_its_reason(smithy: Stack) -> None:
    """It is tried as often as it may, its callers hear why not, and health says so."""
    folder = smithy.models / ".broken"
    folder.mkdir()
    for path in CHECKPOINT.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "tokenizer.json").write_text('{"version": "1.0"}', encoding="utf-8")
    (folder / "model.toml").write_text(GGUF + 'quantization = "q8_0"\n', encoding="utf-8")
    folder.rename(smithy.models / "broken")
    smithy.wait_for_models("broken")
    wait_until(lambda: build(smithy, "broken")["state"] == "failed", "it has failed", BUILT_WITHIN_S)
    caller = Caller(smithy.url)
    refused = caller.complete("broken")
    caller.close()
    row = build(smithy, "broken")
    health = smithy.api.health()

    assert refused.status_code == 503
    assert (row["failures"], bool(row["problem"])) == (2, True)
    assert "degraded" == health["status"]
    assert any("build of broken" in reason for reason in health["reasons"])
    with contextlib.suppress(AnswerError):
        smithy.api.post("/cancel_build", {"model": "broken"})


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Mount a file system that a build does not fit on."""
    folder = Path(tempfile.mkdtemp(prefix="wl-disk-"))
    options = f"size=160m,mode=0755,uid={os.getuid()}"
    subprocess.run([*AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    yield folder
    subprocess.run([*AS_ROOT, "umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


def test_a_full_disk_is_waited_for(small_disk: Path) -> None:
    """A build for which there is no room says so and leaves nothing; when there is, it is made by itself."""
    with stack("cramped", budget="900MiB", config=CONFIG + BUILDS, home=small_disk / "home") as running:
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file:
            file.write(bytes(98 << 20))
        place_model(MINI, running.models / "small", manifest='memory = "100MiB"\nquantization = "q4_0"\n')
        running.wait_for_models("small")
        wait_until(lambda: build(running, "small")["state"] == "waiting", "it waits for room", BUILT_WITHIN_S)
        waiting, left = build(running, "small"), engine_files(running)
        ballast.unlink()
        wait_until(lambda: is_built(running, "small"), "it is built", BUILT_WITHIN_S)
        caller = Caller(running.url)
        text = caller.text("small")
        caller.close()

    assert "disk" in waiting["problem"]
    assert "the source" == waiting["serving"]
    assert not left
    assert text
