"""Engine files in bundles: found where they arrive, for the right device, and never believed."""

import json
from pathlib import Path

import pytest

from controller.bundles.judging import Wish
from controller.bundles.packing import find_sources
from controller.bundles.reporting import State
from controller.errors import BundleError
from tests.unit.bundles import (
    build,
    home,
    key,
    names,
    other,
    pack,
    root,
    shelf,
    take,
    write_mini,
)

__all__ = ["home", "other", "root"]


def test_engine_files_come_with_their_model(home: Path, root: Path, other: Path) -> None:
    """Those built of it, of each kind the newest; the other box finds them, and believes nothing that it has not hashed."""
    digest = write_mini(home)
    made = build(home, key(source=digest))
    build(home, key(source=digest, images={"llama-cpp": "windlass/llama-cpp:0"}))
    text = home / "engines" / key(source=digest, images={"llama-cpp": "windlass/llama-cpp:0"}).fingerprint / "manifest.json"
    text.write_text(text.read_text().replace('"built_at": "2', '"built_at": "1'))
    build(home, key(source="another"))
    states = pack(home, root, "mini", part_bytes=1 << 20)
    take(other, root)

    arrived = shelf(other).find(made.fingerprint)
    assert [State.COPIED, State.COPIED] == states
    assert [made.fingerprint] == [path.name for path in (other / "engines").iterdir()]
    assert arrived is not None
    assert not arrived.verified
    assert shelf(other).verify(made.fingerprint)
    assert frozenset({digest}) == names(other / "models" / "mini")


def test_engine_files_for_another_device_are_left(home: Path, root: Path, other: Path) -> None:
    """What was compiled for one device is taken by that device alone; what was not, by all."""
    digest = write_mini(home)
    compiled = build(home, key(source=digest, device="sm87_p3767-0003_l4t36.4.7_trt10.3.0"))
    portable = build(home, key(source=digest))
    pack(home, root, "mini", part_bytes=1 << 20)

    taken = {one.at: one for one in take(other, root, wish=Wish(device="cpu"))}

    left = taken[f"engines/{compiled.fingerprint}"]
    assert (State.LEFT, True) == (left.state, "built for sm87_p3767-0003_l4t36.4.7_trt10.3.0, and this box is cpu" in left.reason)
    assert State.COPIED == taken[f"engines/{portable.fingerprint}"].state
    assert [portable.fingerprint] == [path.name for path in (other / "engines").iterdir()]


def test_engine_files_can_stay_where_they_are(home: Path, root: Path, other: Path) -> None:
    """Neither packed nor taken where nobody wants them."""
    digest = write_mini(home)
    build(home, key(source=digest))
    assert ["models/mini"] == [one.at for one in find_sources(home, ["mini"], with_engine_files=False)]
    pack(home, root, "mini", part_bytes=1 << 20)

    taken = [one.state for one in take(other, root, wish=Wish(engine_files=False))]

    assert [State.LEFT, State.COPIED] == taken


def test_a_spoilt_engine_file_is_not_packed(home: Path, root: Path) -> None:
    """Its own manifest knows its hash."""
    made = build(home, key(source=write_mini(home)))
    weights = Path(made.folder) / "model.gguf"
    weights.write_bytes(b"ENGINE" * 1000)

    with pytest.raises(BundleError, match="is not what its manifest says"):
        pack(home, root, "mini", part_bytes=1 << 20)


@pytest.mark.parametrize("field", ["device", "source", "lineage"])
def test_an_engine_file_that_lies_about_itself_does_not_arrive(home: Path, root: Path, other: Path, field: str) -> None:
    """Its name follows from what it says it was built from, and a name that does not is not believed."""
    made = build(home, key(source=write_mini(home), device="sm87"))
    path = Path(made.folder) / "manifest.json"
    said = json.loads(path.read_text())
    lied = {**said, field: "sm110" if field == "device" else "0" * 24} if field != "source" else {**said, "images": {"x": "y"}}
    path.write_text(json.dumps(lied))
    pack(home, root, "mini", part_bytes=1 << 20)

    taken = {one.at: one for one in take(other, root)}

    assert State.FAILED == taken[f"engines/{made.fingerprint}"].state
    assert State.COPIED == taken["models/mini"].state
    assert not list((other / "engines").glob("[!.]*"))
