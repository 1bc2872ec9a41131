"""
The plug is pulled at random moments, while models are swapped and an engine file is built, and the machine comes back.

Nothing is lost that was there, nothing half made is served, and every model says what it said before.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from bench.stack import wait_until
from tests.appliance.box import API_KEY, FIRST_WITHIN_S, NAME, Box
from tests.appliance.conftest import DISK_SIZE, MachineMaker
from tests.appliance.disk import Disk
from tests.appliance.traffic import TOKENS, Seen, traffic
from tests.appliance.vm import Vm

pytestmark = pytest.mark.appliance

CUTS: Final = 10
SEED: Final = int(os.environ.get("WINDLASS_CUTS_SEED") or time.time())
"""Other moments every time; the one to try again is printed with the failure."""
LONGEST_S: Final = 30.0
"""From the first request to the cut; a build takes about as long."""
PAIR: Final = ("left", "right")
"""The budget holds one of the two: every other request is a swap."""
BUILT_WITHIN_S: Final = 400.0
ON_THE_ESP: Final = {
    "windlass/appliance.toml": """
[gateway]
listen = "0.0.0.0:8000"
[memory]
budget = "180MiB"
[scheduler]
quantum_s = 1
min_residency_s = 0.5
[engines.llama-cpp]
threads = 1
[builds]
memory = "64MiB"
keep_free = "64MiB"
cpus = 0.03
"""
}
SMALLER: Final = 'memory = "80MiB"\nquantization = "q4_0"\n'


@dataclass(slots=True)
class Before:
    """
    What must be there after every cut.

    Attributes:
        chance: decides when.
        answers: what each model says.
        models: what is registered.
        rows: how many rows the tables of the database have had.
        smaller: the hashes of an engine file, the same for every build, since all are of the same weights.
        cuts: what was going on at each cut.

    """

    chance: random.Random
    answers: dict[str, str]
    models: set[str]
    rows: dict[str, int]
    smaller: dict[str, str]
    cuts: list[Seen] = field(default_factory=list)


@pytest.fixture(scope="module")
def before(box: Box) -> Before:
    """Register the models, build the first engine file in peace, and write down what everybody says."""
    for name in PAIR:
        box.place_model(name, 'memory = "100MiB"\n')
    box.place_model("made", SMALLER)
    box.wait_for_models(NAME, *PAIR, "made")
    wait_until(lambda: "built" == build(box, "made")["state"], "the engine file is built", BUILT_WITHIN_S)
    answers = {model: text(box, model) for model in (NAME, *PAIR, "made")}
    told = box.inspect()
    (smaller,) = told["engines"].values()
    assert smaller["whole"]
    box.vm.shell("sync")
    return Before(
        chance=random.Random(SEED),  # noqa: S311 -- nothing secret is chosen
        answers=answers,
        models=box.models(),
        rows=told["database"]["rows"],
        smaller=smaller["hashes"],
    )


def build(box: Box, model: str) -> dict[str, Any]:
    """Return what is told of a model's build."""
    return next((row for row in box.api.get("/builds")["builds"] if row["model"] == model), {"state": "none"})


def text(box: Box, model: str) -> str:
    """Return what a model says."""
    with box.caller() as caller:
        return caller.text(model, tokens=TOKENS)


def wait_for_moment(seen: Seen, chance: random.Random, cut: int) -> None:
    """Return at a random moment; one of a build for certain at the first cut, one of a swap at the second."""
    if cut == 0:
        wait_until(lambda: seen.building, "a build is under way", BUILT_WITHIN_S)
    if cut == 1:
        wait_until(lambda: seen.swapping, "a model is coming or leaving", BUILT_WITHIN_S)
    time.sleep(chance.uniform(0, LONGEST_S if cut > 1 else 3))


@pytest.mark.parametrize("cut", range(CUTS))
def test_a_cut_loses_nothing(box: Box, before: Before, cut: int) -> None:
    """The plug is pulled while callers are answered; after the next start all is as it was, and goes on."""
    print(f"WINDLASS_CUTS_SEED={SEED}, cut {cut}")  # noqa: T201 -- pytest shows it with a failure
    if all(row["state"] == "built" for row in box.api.get("/builds")["builds"]):
        box.place_model(f"made-{cut}", SMALLER)
        before.models.add(f"made-{cut}")
        before.answers[f"made-{cut}"] = before.answers["made"]
    with traffic(box, PAIR, callers=2, chance=before.chance) as seen:
        wait_for_moment(seen, before.chance, cut)
        box.vm.cut()
    before.cuts.append(seen)
    box.start()

    assert not seen.refused
    assert {(model, said) for model, said in seen.answers} <= set(before.answers.items())
    assert_whole(box, before)


def assert_whole(box: Box, before: Before) -> None:
    """Compare what is there with what was."""
    box.wait_for_models(*before.models)
    told = box.inspect()
    database = told["database"]

    assert ("ok", []) == (database["integrity"], database["moved_aside"])
    assert {name: count for name, count in before.rows.items() if database["rows"][name] < count} == {}
    assert {name: file for name, file in told["engines"].items() if not file["whole"] or file["hashes"] != before.smaller} == {}
    assert [path for path in told["half_made"] if not is_under_way(box, path)] == []
    assert before.models == set(told["models"])
    assert {model: text(box, model) for model in (NAME, *PAIR, "made")} == {
        model: before.answers[model] for model in (NAME, *PAIR, "made")
    }
    # One container each for what is registered, and at most one for a build: nothing is left of the ones that lost their power.
    workers = box.vm.shell("docker ps --all --filter label=windlass.owner=windlass --format '{{.Names}}'").split()
    assert len(workers) <= len(before.models) + 1


def is_under_way(box: Box, path: str) -> bool:
    """Say whether a folder is that of a build which goes on; what a cut has left is gone when a new one begins."""
    fingerprints = {row["fingerprint"] for row in box.api.get("/builds")["builds"] if row["state"] != "built"}
    return "/engines/.building-" in path and any(fingerprint in path for fingerprint in fingerprints)


def test_what_was_being_built_gets_built(box: Box, before: Before) -> None:
    """After the last cut every engine file comes to its end, the same to the byte, and what is served from it speaks as ever."""
    made = sorted(model for model in before.models if model.startswith("made"))
    wait_until(lambda: all(build(box, model)["state"] == "built" for model in made), "all are built", BUILT_WITHIN_S)
    told = box.inspect()

    assert len(made) >= 2
    assert set(made) == {file["model"] for file in told["engines"].values()}
    assert all(file["whole"] and file["hashes"] == before.smaller for file in told["engines"].values())
    assert [] == told["half_made"]
    assert {model: text(box, model) for model in made} == {model: before.answers[model] for model in made}


def test_the_cuts_came_when_they_mattered(before: Before) -> None:
    """Some of them hit a build, and some a swap; what was hit is told."""
    cuts = [{"building": seen.building, "swapping": seen.swapping, "answers": len(seen.answers)} for seen in before.cuts]
    print(json.dumps({"seed": SEED, "cuts": cuts}))  # noqa: T201 -- for whoever reads the report

    assert CUTS == len(cuts)
    assert any(cut["building"] for cut in cuts)
    assert any(cut["swapping"] for cut in cuts)
    assert any(cut["answers"] for cut in cuts)


@pytest.fixture
def fresh(image: Disk, disks: Path, put_together: MachineMaker) -> Iterator[Vm]:
    """Put a machine together that was never started."""
    vm = put_together(image.layer(disks / "fresh.qcow2", size=DISK_SIZE))
    vm.authorise()
    yield vm
    vm.cut()
    vm.disk.path.unlink()


def test_a_first_start_that_is_cut_begins_anew(fresh: Vm) -> None:
    """Cut while the images are unpacked, and again at two random moments, it makes a whole box of itself in the end."""
    chance = random.Random(SEED)  # noqa: S311 -- nothing secret is chosen
    print(f"WINDLASS_CUTS_SEED={SEED}")  # noqa: T201 -- pytest shows it with a failure
    fresh.switch_on()
    fresh.wait_for_shell()
    fresh.shell("until pgrep -x zstd; do sleep 0.2; done", within_s=FIRST_WITHIN_S)
    fresh.cut()
    for _ in range(2):
        fresh.switch_on()
        time.sleep(chance.uniform(10, 120))
        fresh.cut()
    fresh.switch_on()
    fresh.wait_for_health(within_s=FIRST_WITHIN_S)
    key = fresh.wait_for(API_KEY, within_s=FIRST_WITHIN_S)
    box = Box(vm=fresh, key=key)
    fresh.wait_for_shell()
    box.wait_for_models(NAME)
    told = box.inspect()

    assert text(box, NAME)
    assert ("ok", []) == (told["database"]["integrity"], told["database"]["moved_aside"])
    assert key == fresh.shell("cat /var/lib/windlass/etc/api-key")
    wait_until(lambda: not fresh.shell("systemctl list-jobs --no-legend"), "systemd has nothing left to start", 300)
    assert "" == fresh.shell("systemctl --failed --no-legend")
