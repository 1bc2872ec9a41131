"""Bundles between real stacks: killed on the way, by way of a stick's file system, and served on the other side."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.stack import PROJECT, Stack, place_model, stack, wait_until
from controller.units import MIB
from tests.system.conftest import CHECKPOINT, CONFIG, MINI
from tests.system.talk import AS_ROOT, Caller
from tests.system.test_builds import BUILDS, BUILT_WITHIN_S, GGUF, engine_files, is_built, said

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

LARGE_BYTES = 384 * MIB
"""Long enough to be killed in the middle, on any disk."""


def verb(running: Stack, *words: str) -> list[str]:
    """Build the command line for a stack's home, as root where the home is."""
    setting = {"WINDLASS_HOME": str(running.place.home), "WINDLASS_RUN": str(running.place.run)}
    return [*AS_ROOT, "env", *(f"{name}={value}" for name, value in setting.items()), sys.executable, "-m", "controller", *words]


def bundle(running: Stack, *words: str, rc: int = 0) -> Mapping[str, str]:
    """Run a verb of bundles and return what became of each folder."""
    done = subprocess.run(verb(running, "bundle", *words, "--json"), cwd=PROJECT, capture_output=True, text=True, check=False)
    assert rc == done.returncode, done.stderr + done.stdout
    told = json.loads(done.stdout)["folders"] if done.stdout else []
    return {f"{one['kind']} {one['name']}": one["state"] for one in told}


def cut(running: Stack, *words: str, when: Any) -> None:  # noqa: ANN401 -- any question
    """Run a verb and kill it as soon as something holds."""
    process = subprocess.Popen(verb(running, "bundle", *words), cwd=PROJECT, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(lambda: when() or process.poll() is not None, "it is under way", 60.0)
        assert process.poll() is None, "it had ended before it could be killed"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def written(folder: Path, pattern: str) -> int:
    """Return how many bytes of the large file lie there."""
    return sum(path.stat().st_size for path in folder.glob(pattern))


@pytest.fixture(scope="module")
def giver() -> Iterator[Stack]:
    """Run the box that models come from: one that was built here, and one that is large."""
    with stack("giver", budget="900MiB", config=CONFIG + BUILDS) as running:
        place_model(CHECKPOINT, running.models / "converted", manifest=GGUF + 'quantization = "q8_0"\n')
        running.wait_for_models("converted")
        wait_until(lambda: is_built(running, "converted"), "it is built", BUILT_WITHIN_S)
        large = running.models / "large"
        shutil.copytree(MINI, large)
        with (large / "notes.bin.txt").open("wb") as file:
            for number in range(LARGE_BYTES // MIB):
                file.write(number.to_bytes(8) * (MIB // 8))
        yield running


@pytest.fixture
def taker() -> Iterator[Stack]:
    """Run the box that they come to."""
    with stack("taker", budget="900MiB", config=CONFIG + BUILDS) as running:
        yield running


@pytest.fixture
def stick() -> Iterator[Path]:
    """Make a folder that a bundle can be put into."""
    with tempfile.TemporaryDirectory(prefix="stick-", dir=PROJECT / "build") as folder:
        yield Path(folder)


def test_a_model_and_its_engine_file_move_to_another_box(giver: Stack, taker: Stack, stick: Path) -> None:
    """The other box answers the same, from the file that was built on the first one, and builds nothing."""
    here, there = Caller(giver.url), Caller(taker.url)
    wanted = here.text("converted")
    (name,) = engine_files(giver)
    packed = bundle(giver, "export", "converted", "--to", str(stick))
    taken = bundle(taker, "import", str(stick))
    taker.wait_for_models("converted")
    wait_until(lambda: is_built(taker, "converted"), "its engine file is compared", BUILT_WITHIN_S)
    answer = there.text("converted")
    here.close()
    there.close()

    assert {f"engine_file {name}": "copied", "model converted": "copied"} == packed == taken
    assert wanted == answer
    assert [name] == engine_files(taker)
    assert said(taker, "engine_file.verified")["matches"] is True
    assert not [line for line in taker.logs("controller").splitlines() if '"build.began"' in line]


def test_both_ways_go_on_after_a_kill(giver: Stack, taker: Stack, stick: Path) -> None:
    """Killed in the middle of a large file: nothing half made is seen, and the same command ends it."""
    half = LARGE_BYTES // 3
    cut(giver, "export", "large", "--to", str(stick), when=lambda: written(stick, "models/large/notes*") > half)
    refused = bundle(taker, "import", str(stick), rc=4)
    packed = bundle(giver, "export", "large", "--to", str(stick))
    cut(taker, "import", str(stick), when=lambda: written(taker.models, ".arriving-large-*/notes*") > half)
    seen = [model["name"] for model in taker.api.get("/models")["models"]]
    at_the_cut = written(taker.models, ".arriving-large-*/notes*")
    taken = bundle(taker, "import", str(stick))
    taker.wait_for_models("large")
    caller = Caller(taker.url)
    text = caller.text("large")
    caller.close()

    assert {} == refused
    assert {"model large": "copied"} == packed == taken
    assert (True, []) == (at_the_cut > half, seen)
    assert text
    assert ["large"] == [path.name for path in taker.models.iterdir()]
    same = subprocess.run(["diff", "-r", giver.models / "large", taker.models / "large"], check=False)
    assert 0 == same.returncode


def test_an_engine_file_for_another_device_is_left_and_built_here(giver: Stack, taker: Stack, stick: Path) -> None:
    """The box says what it was built for and what it is, and the model builds its own."""
    bundle(giver, "export", "converted", "--to", str(stick))
    manifest = stick / "windlass-bundle.json"
    said_so = json.loads(manifest.read_text(encoding="utf-8"))
    said_so["engine_files"][0]["device"] = "sm87_p3767-0003_l4t36.4.7_trt10.3.0"
    manifest.write_text(json.dumps(said_so), encoding="utf-8")
    taken = bundle(taker, "import", str(stick))
    taker.wait_for_models("converted")
    wait_until(lambda: is_built(taker, "converted"), "it is built", BUILT_WITHIN_S)

    assert ["copied", "left"] == sorted(taken.values())
    assert "left" == taken[f"engine_file {said_so['engine_files'][0]['name']}"]


def test_a_model_is_replaced_while_it_answers(giver: Stack, taker: Stack, stick: Path) -> None:
    """The answer under way is delivered whole, the next one comes from the new model, and nobody is refused between them."""
    place_model(MINI, taker.models / "large", manifest='memory = "100MiB"\n')
    taker.wait_for_models("large")
    bundle(giver, "export", "large", "--to", str(stick))
    caller, stop, bad = Caller(taker.url), threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            answer = caller.complete("large", tokens=8)
            if answer.status_code != 200:
                bad.append(answer.text)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        refused = bundle(taker, "import", str(stick), rc=4)
        taken = bundle(taker, "import", str(stick), "--replace")
        wait_until(lambda: row_bytes(taker) > 0 and not (taker.models / "large" / "model.toml").exists(), "it is there", 60.0)
    finally:
        stop.set()
        asking.join()
        caller.close()

    assert {} == refused
    assert {"model large": "replaced"} == taken
    assert [] == bad
    assert ["large"] == [path.name for path in taker.models.iterdir()]


def row_bytes(running: Stack) -> int:
    """Return the size of the weights that are served."""
    return sum(int(model["weights_bytes"]) for model in running.api.get("/models")["models"])


def test_a_stick_with_fat_carries_everything(giver: Stack, taker: Stack, stick: Path) -> None:
    """A stick as people have them knows no owners, no modes, no links, and times of two seconds: the engine file is found."""
    image, packed, back = stick / "fat.img", stick / "packed", stick / "back"
    bundle(giver, "export", "converted", "--to", str(packed))
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mformat", "-i", image, "-F", "::"], check=True)
    subprocess.run(["mcopy", "-i", image, "-s", packed, "::windlass"], check=True)
    subprocess.run(["mcopy", "-i", image, "-s", "::windlass", back], check=True)
    shown = subprocess.run(verb(giver, "bundle", "show", str(back), "--verify"), cwd=PROJECT, check=False)
    taken = bundle(taker, "import", str(back))
    taker.wait_for_models("converted")
    wait_until(lambda: is_built(taker, "converted"), "its engine file is compared", BUILT_WITHIN_S)

    assert 0 == shown.returncode
    assert {"copied"} == set(taken.values())
    assert not [line for line in taker.logs("controller").splitlines() if '"build.began"' in line]
