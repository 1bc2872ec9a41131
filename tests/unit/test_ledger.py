"""The ledger: what was measured, remembered over restarts, and never a reason to stop."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.errors import StoreError
from controller.footprint import Measured
from controller.store.database import MIGRATIONS, Database, open_database
from controller.store.ledger import Ledger, LedgerKey, options_text

KEY = LedgerKey(engine="llama-cpp", image="windlass/llama-cpp:1", digest="d", context_tokens=2048, parallel=1, device="cpu")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Open a new database."""
    database = open_database(tmp_path / "state.db")
    yield database
    database.close()


def test_nothing_is_known_of_what_never_ran(database: Database) -> None:
    """A new ledger has no figures."""
    assert Ledger(database).find(KEY) is None


def test_memory_is_the_most_that_was_seen(database: Database) -> None:
    """Each of the two maxima is kept by itself."""
    ledger = Ledger(database)
    ledger.saw_memory(KEY, anon_bytes=10, mapped_bytes=50)
    ledger.saw_memory(KEY, anon_bytes=20, mapped_bytes=40)

    assert Measured(anon_bytes=20, mapped_bytes=50) == ledger.find(KEY)


def test_load_time_follows_the_recent_and_remembers_the_worst(database: Database) -> None:
    """The average moves by three tenths, the worst sinks by a tenth a load."""
    ledger = Ledger(database)
    for load_s in (1.0, 3.0, 1.0):
        ledger.saw_load(KEY, load_s=load_s)
    found = ledger.find(KEY)

    assert found is not None
    assert (pytest.approx(1.42), pytest.approx(2.7), 3) == (found.load_s, found.load_worst_s, found.loads)


def test_requests_are_counted_and_the_longest_kept(database: Database) -> None:
    """A request whose speed is unknown counts all the same."""
    ledger = Ledger(database)
    ledger.saw_request(KEY, tokens=100, tokens_per_s=10.0)
    ledger.saw_request(KEY, tokens=50)

    assert Measured(longest_tokens=100, tokens_per_s=10.0, requests=2) == ledger.find(KEY)


def test_kill_at_a_limit_is_remembered(database: Database) -> None:
    """The largest limit that was too small counts."""
    ledger = Ledger(database)
    ledger.saw_too_little(KEY, limit_bytes=100)
    ledger.saw_too_little(KEY, limit_bytes=90)

    assert Measured(out_of_memory_bytes=100) == ledger.find(KEY)


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, engine="transformers"),
        replace(KEY, image="windlass/llama-cpp:2"),
        replace(KEY, digest="e"),
        replace(KEY, context_tokens=4096),
        replace(KEY, parallel=2),
        replace(KEY, device="cuda"),
        replace(KEY, options=options_text({"kv_type": "q8_0"})),
    ],
)
def test_a_measurement_holds_for_exactly_one_combination(database: Database, other: LedgerKey) -> None:
    """Another engine, version, file, context, width, device or switch knows nothing of it."""
    ledger = Ledger(database)
    ledger.saw_load(KEY, load_s=1.0)

    assert ledger.find(other) is None


def test_flushed_figures_are_there_after_a_restart(database: Database) -> None:
    """What was flushed comes back whole; what was not is gone."""
    ledger = Ledger(database)
    ledger.saw_load(KEY, load_s=1.5)
    ledger.saw_memory(KEY, anon_bytes=10, mapped_bytes=50)
    ledger.saw_request(KEY, tokens=7, tokens_per_s=3.5)
    flushed = ledger.flush()
    ledger.saw_load(replace(KEY, digest="later"), load_s=1.0)

    assert 1 == flushed
    assert {KEY: ledger.find(KEY)} == Ledger(database).all()


def test_only_what_changed_is_written(database: Database) -> None:
    """A second flush has nothing to do, and a maximum that was not beaten changes nothing."""
    ledger = Ledger(database)
    ledger.saw_memory(KEY, anon_bytes=10, mapped_bytes=50)
    ledger.flush()
    ledger.saw_memory(KEY, anon_bytes=9, mapped_bytes=50)

    assert 0 == ledger.flush()


def test_failed_flush_is_tried_again(database: Database) -> None:
    """A full disk loses no figure: the next flush that can write writes it."""
    ledger = Ledger(database)
    ledger.saw_load(KEY, load_s=1.0)
    database.write("ALTER TABLE measured RENAME TO hidden")
    with pytest.raises(StoreError):
        ledger.flush()
    database.write("ALTER TABLE hidden RENAME TO measured")

    assert 1 == ledger.flush()
    assert {KEY: ledger.find(KEY)} == Ledger(database).all()


def test_switches_are_the_same_in_any_order() -> None:
    """What is written in another order runs the same way, and no switches at all are an empty text."""
    assert options_text({"a": 1, "b": True}) == options_text({"b": True, "a": 1}) != options_text({"a": 1, "b": False})
    assert options_text({}) == ""


def test_what_an_older_version_measured_is_taken_over(tmp_path: Path) -> None:
    """A database from before there were options opens, and its figures hold where no option is set."""
    path = tmp_path / "state.db"
    old = sqlite3.connect(path)
    old.executescript(f"BEGIN; {MIGRATIONS[0]}; PRAGMA user_version = 1; COMMIT;")
    old.execute(
        "INSERT INTO ledger VALUES (?, ?, ?, 2048, 1, 'cpu', 10, 50, 7, 0, 1.5, 2.5, 30.0, 3, 4)", (KEY.engine, KEY.image, "d")
    )
    old.commit()
    old.close()
    database = open_database(path)

    found = Ledger(database).all()
    database.close()

    known = Measured(anon_bytes=10, longest_tokens=7, load_s=1.5, load_worst_s=2.5, tokens_per_s=30.0, loads=3, requests=4)
    assert {KEY: known} == found


def test_what_a_model_has_served_is_no_news_and_its_memory_is(database: Database) -> None:
    """A request like the last one changes no description; more memory, a longer request and another load time do, and once."""
    ledger = Ledger(database)
    ledger.saw_request(KEY, tokens=10, tokens_per_s=5.0)
    first = ledger.take_news()
    ledger.saw_request(KEY, tokens=10, tokens_per_s=7.0)
    like_the_last = ledger.take_news()
    ledger.saw_memory(KEY, anon_bytes=100, mapped_bytes=5)

    assert (True, False, True, False) == (first, like_the_last, ledger.take_news(), ledger.take_news())


def test_memory_of_cards_is_kept_and_is_news(database: Database) -> None:
    """Its maximum, and the most that was too little; both survive the next start."""
    ledger = Ledger(database)
    for gpu_bytes in (100, 70):
        ledger.saw_memory(KEY, anon_bytes=1, mapped_bytes=1, gpu_bytes=gpu_bytes)
    seen = ledger.take_news()
    for kept_bytes in (50, 40):
        ledger.saw_too_little_on_cards(KEY, kept_bytes=kept_bytes)
    ledger.flush()

    assert (True, True) == (seen, ledger.take_news())
    assert Measured(anon_bytes=1, mapped_bytes=1, gpu_bytes=100, gpu_out_of_memory_bytes=50) == Ledger(database).find(KEY)


def test_an_older_program_goes_on_with_what_a_newer_one_has_written(tmp_path: Path) -> None:
    """It writes rows without the columns it does not know, and reads its own."""
    database = open_database(tmp_path / "state.db")
    database.write(
        "INSERT OR REPLACE INTO measured (engine, image, digest, context_tokens, parallel, device, options, anon_bytes, "
        "mapped_bytes, longest_tokens, out_of_memory_bytes, load_s, load_worst_s, tokens_per_s, loads, requests) "
        "VALUES ('e', 'i', 'd', 1, 1, 'cpu', '', 5, 0, 0, 0, 0, 0, 0, 0, 0)"
    )

    (found,) = Ledger(database).all().values()
    database.close()

    assert Measured(anon_bytes=5) == found
