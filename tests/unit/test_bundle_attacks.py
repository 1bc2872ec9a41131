"""Bundles from somebody who means harm, or from a stick that loses bytes: nothing leaves its place, nothing false arrives."""

import contextlib
import copy
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.bundles.judging import Wish
from controller.bundles.layout import name_problem
from controller.bundles.manifest import FILE_NAME, parse_bundle
from controller.errors import BundleError, BundleRefusedError
from tests.unit.bundles import SMALL_PARTS, build, contents, key, pack, put, take, write_mini

HOSTILE: tuple[Any, ...] = (
    *("..", "../../evil", "/evil", "a/../../evil", "a/./b", "", ".", "a//b", "a/", "\x00", "a\nb", "a\\..\\b", "CON:", ".hidden"),
    *("\ud800", "x" * 300, "/".join("a" * 20), "models", "weights.gguf", "WEIGHTS.GGUF", "weights.gguf/x", "weights.gguf.001"),
    *("0" * 24, "0" * 64, "F" * 24, "\u00e9vil", "e\u0301vil", "any", "auto"),
    *(-1, 0, 1, SMALL_PARTS, 2**63, 2**70, 1.5, True, None, [], {}, [[]], {"name": "x"}),
)
LETTERS = st.text(st.sampled_from("aA.b/ \\:e\u0301\u00e9\x00\n*"), max_size=12)
BYTES = st.binary(max_size=200)
DOCUMENTS = st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())


def places(value: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 -- JSON
    """Yield the way to every value in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield (name,)
        yield from ((name, *rest) for rest in places(one))


def spoilt(said: Any, way: tuple[Any, ...], value: Any, deed: str) -> Any:  # noqa: ANN401 -- JSON
    """Return a document with one value changed, removed, or there twice."""
    made = copy.deepcopy(said)
    at = made
    for name in way[:-1]:
        at = at[name]
    if deed == "twice" and isinstance(at, list):
        at.append(copy.deepcopy(at[way[-1]]))
    elif deed == "remove":
        del at[way[-1]]
    else:
        at[way[-1]] = value
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an honest bundle, with two models and an engine file."""
    top = tmp_path_factory.mktemp("honest")
    home = top / "home"
    put(home / "models" / "one", {"weights.gguf": bytes(range(256)) * 40, "a/adapter_config.json": b"{}"})
    build(home, key(source=write_mini(home)))
    pack(home, top / "bundle")
    return top / "bundle"


def visible(home: Path) -> dict[str, dict[str, bytes]]:
    """Return the content of every folder that has its name."""
    return {f"{kind}/{path.name}": contents(path) for kind in ("models", "engines") for path in (home / kind).glob("[!.]*")}


def named(bundle: dict[str, Any], at: str) -> dict[str, list[dict[str, Any]]]:
    """Return what a manifest says of a folder: the parts of each file."""
    kind, _, name = at.partition("/")
    items = bundle[{"models": "models", "engines": "engine_files"}[kind]]
    (item,) = [one for one in items if one["name"] == name]
    return {file["name"]: file["parts"] for file in item["files"]}


def hashes(data: bytes, parts: list[dict[str, Any]]) -> list[str]:
    """Hash a file part by part; what is beyond the last part is one more."""
    found, at = [], 0
    for part in parts:
        found.append(hashlib.sha256(data[at : at + part["size_bytes"]]).hexdigest())
        at += part["size_bytes"]
    return found + (["more"] if data[at:] else [])


@given(data=st.data())
def test_whatever_a_manifest_says_nothing_leaves_its_place(root: Path, data: st.DataObject) -> None:
    """It is refused in our own words, or what arrives is exactly what it says, below the home and nowhere else."""
    said = json.loads((root / FILE_NAME).read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(st.sampled_from(list(places(said))))
        said = spoilt(said, way, data.draw(st.sampled_from(HOSTILE)), data.draw(st.sampled_from(["set", "remove", "twice"])))
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        stick, home = put(top / "stick", contents(root)), top / "deep" / "er" / "home"
        (stick / FILE_NAME).write_text(json.dumps(said))
        before = contents(stick)
        with contextlib.suppress(BundleError):
            take(home, stick, wish=Wish(device=data.draw(st.sampled_from(["", "cpu"]))))

        assert before == contents(stick)
        assert {"stick", "deep"} >= {path.name for path in top.iterdir()}
        assert {"models", "engines"} >= {path.name for path in home.glob("*")}
        assert not [path for path in home.rglob("*") if path.is_symlink()]
        for at, files in visible(home).items():
            wanted = named(said, at)
            assert {name: [part["sha256"] for part in parts] for name, parts in wanted.items()} == {
                name: hashes(content, wanted.get(name, [])) for name, content in files.items()
            }


@given(raw=BYTES | DOCUMENTS)
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    """It says in our own words that this is no manifest."""
    with pytest.raises(BundleError):
        parse_bundle(raw)


def test_a_manifest_of_nothing_but_brackets() -> None:
    """Depth is refused as everything else."""
    with pytest.raises(BundleError):
        parse_bundle(b"[" * 100_000)
    with pytest.raises(BundleRefusedError):
        parse_bundle(b'{"format": 1, "models": 7}')


@given(path=LETTERS | st.text(max_size=30))
def test_a_name_that_is_taken_leads_nowhere(path: str) -> None:
    """It is below its folder on every system, and can be made."""
    if name_problem(path) is not None:
        return
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder), {path: b"x"})

        assert [path] == list(contents(Path(folder)))
    assert path == os.path.normpath(path)
    assert not path.startswith("/")
    assert ".." not in path.split("/")


@given(data=st.data())
def test_a_spoilt_file_never_arrives(root: Path, data: st.DataObject) -> None:
    """Whatever bytes of whatever file have changed: its folder does not appear, and the others are what they were."""
    with tempfile.TemporaryDirectory() as folder:
        stick, home = put(Path(folder) / "stick", contents(root)), Path(folder) / "home"
        there = [name for name, content in contents(stick).items() if name != FILE_NAME and content]
        victim = stick / data.draw(st.sampled_from(sorted(there)))
        raw = bytearray(victim.read_bytes())
        place = data.draw(st.integers(0, len(raw) - 1))
        if data.draw(st.booleans()):
            raw[place] ^= data.draw(st.integers(1, 255))
        else:
            raw = raw[:place]
        victim.write_bytes(raw)
        at = "/".join(victim.relative_to(stick).parts[:2])
        outcomes = {one.at: one.state.value for one in take(home, stick)}

        assert {at} == {one for one, state in outcomes.items() if state == "failed"}
        assert set(outcomes) - {at} == set(visible(home))
