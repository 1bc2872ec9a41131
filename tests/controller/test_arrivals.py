"""Engine files that come from another box: found by a controller that runs, compared, and only then served."""

from pathlib import Path

import pytest

from tests.controller.rig import OWNER
from tests.controller.test_builds import WITHIN_S, Smithy, becomes, controller, drop, fail, half_made, hang, row, smithy, well
from tests.unit.bundles import pack, take
from tests.waiting import until

__all__ = ["smithy"]

NEWER = {name: {"image": f"windlass/{name}:2"} for name in ("llama-cpp", "transformers")}


async def packed(folder: Path, smithy: Smithy, root: Path) -> str:
    """Have another box build an engine file, pack it with its model, and return its name."""
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "built")
    pack(folder, root, part_bytes=1 << 20)
    (made,) = smithy.begun
    smithy.begun.clear()
    return made[0]


@pytest.fixture
async def root(tmp_path: Path, smithy: Smithy) -> Path:
    """Return a bundle that another box has made."""
    (tmp_path / "another" / "models").mkdir(parents=True)
    await packed(tmp_path / "another", smithy, tmp_path / "bundle")
    return tmp_path / "bundle"


async def test_what_arrives_is_served_without_a_build(folder: Path, smithy: Smithy, root: Path) -> None:
    """Beside a running controller: the model is registered, its engine file compared, and nothing is built."""
    async with controller(folder, smithy) as client:
        take(folder, root)
        await becomes(client, "m", "built")
        await client.granted("m", lease="1")

    assert not smithy.begun
    assert not half_made(folder)


async def test_what_is_spoilt_is_built_anew(folder: Path, smithy: Smithy, root: Path) -> None:
    """A byte that changed after it had arrived is found before anybody is served from it."""
    take(folder, root)
    (arrived,) = (folder / "engines").iterdir()
    weights = arrived / "model.gguf"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "built")

    assert [(arrived.name, 0), (arrived.name, 1)][: len(smithy.begun)] == smithy.begun
    assert smithy.begun


async def test_one_of_an_older_version_is_served_until_the_newest_is_built(folder: Path, smithy: Smithy, root: Path) -> None:
    """It was made by other images: it is compared first, and callers are answered while the build runs."""
    take(folder, root)
    smithy.deeds.append(hang)
    async with controller(folder, smithy, engines=NEWER) as client:
        await becomes(client, "m", "building")
        await client.granted("m", lease="1")
        meanwhile = await row(client, "m")

    assert "an older engine file" == meanwhile["build"]["serving"]


async def test_one_that_arrives_after_its_build_has_failed_is_served(folder: Path, smithy: Smithy, root: Path) -> None:
    """Nobody need ask for it: the next look finds it."""
    smithy.deeds += [fail] * 3
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "failed")
        take(folder, root)
        (folder / "models" / ".look").mkdir()  # so that the look comes before its time
        await becomes(client, "m", "built")
        await client.granted("m", lease="1")


async def test_an_import_is_not_in_the_way_of_a_build(folder: Path, smithy: Smithy, root: Path) -> None:
    """Of two that make the same file at once one is kept, whole, and nothing is left beside it."""
    smithy.deeds.append(hang)
    drop(folder, "m")
    async with controller(folder, smithy) as client:
        await becomes(client, "m", "building")
        take(folder, root)
        ((name, _),) = smithy.begun
        await until("it has arrived", (folder / "engines" / name).is_dir, deadline_s=WITHIN_S)
        well(smithy, smithy.bench(OWNER, name).spec, folder / "engines" / f".building-{name}" / "out")
        await becomes(client, "m", "built")
        await client.granted("m", lease="1")

    assert [name] == [path.name for path in (folder / "engines").iterdir()]
