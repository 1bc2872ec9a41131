"""Bytes and seconds, read and written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.units import GIB, KIB, MIB, format_bytes, format_seconds, parse_bytes


@pytest.mark.parametrize(
    ("text", "count_bytes"),
    [
        ("0", 0),
        ("1048576", MIB),
        ("17B", 17),
        ("7.4GiB", round(7.4 * GIB)),
        ("900 MB", 900_000_000),
        ("1k", KIB),
        ("2kb", 2000),
        ("3KiB", 3 * KIB),
        ("4M", 4 * MIB),
        ("5 mib", 5 * MIB),
        (" 6G ", 6 * GIB),
        ("7GB", 7_000_000_000),
    ],
)
def test_a_size_is_read_in_any_usual_unit(text: str, count_bytes: int) -> None:
    """Binary and decimal units, with and without a space, in any case."""
    assert parse_bytes(text) == count_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.GiB", "1e9", "7.4 GiB x", "12 parsecs", "0x10", "1 2", "∞", "nan"])
def test_what_is_not_a_size_is_refused_with_an_example(text: str) -> None:
    """The text says what was wanted and what came."""
    with pytest.raises(ValueError, match=r"wanted a size such as 7\.4GiB or 900MB, got"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (KIB, "1 KiB"),
        (1023 * KIB, "1023 KiB"),
        (512 * KIB, "512 KiB"),
        (MIB, "1 MiB"),
        (round(2.88 * GIB), "2.88 GiB"),
        (1500 * GIB, "1500 GiB"),
        (-2 * MIB, "-2 MiB"),
    ],
)
def test_a_size_is_written_with_three_figures(count_bytes: int, text: str) -> None:
    """The largest unit that leaves at least one whole is taken."""
    assert format_bytes(count_bytes) == text


@given(st.integers(0, 2**50))
def test_a_written_size_reads_back_within_its_precision(count_bytes: int) -> None:
    """Three figures lose less than one percent."""
    assert parse_bytes(format_bytes(count_bytes)) == pytest.approx(count_bytes, rel=0.01)


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0 ms"),
        (0.35, "350 ms"),
        (1, "1.0 s"),
        (2.44, "2.4 s"),
        (59.9, "59.9 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_a_duration_is_written_for_people(duration_s: float, text: str) -> None:
    """From milliseconds to hours, two units at most."""
    assert format_seconds(duration_s) == text
