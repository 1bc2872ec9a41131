"""How hard a request looks."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.gateway.signals import SCANNED_CHARACTERS, estimate_tokens, sample, weigh


def difficulty(text: str, **options: object) -> float:
    """Weigh one text."""
    return weigh([text], prompt_tokens=estimate_tokens([text]), **options).difficulty  # type: ignore[arg-type]


def test_a_greeting_is_easy() -> None:
    """Nothing speaks for a large model."""
    assert difficulty("hi there") < 0.05


def test_each_signal_makes_a_request_harder() -> None:
    """Code, mathematics, reasoning, questions, turns, tools, long answers and schemas each count, and are named."""
    plain = difficulty("tell me of the sea")
    cases = {
        "code": weigh(["```py\nx\n```"], prompt_tokens=4),
        "math": weigh(["the integral of x"], prompt_tokens=4),
        "reasoning": weigh(["compare the two"], prompt_tokens=4),
        "question": weigh(["why so"], prompt_tokens=4),
        "conversation": weigh(["go on"], prompt_tokens=4, turns=9),
        "tools": weigh(["go on"], prompt_tokens=4, tools=True),
        "long_answer": weigh(["go on"], prompt_tokens=4, max_tokens=4000),
        "structured": weigh(["go on"], prompt_tokens=4, structured=True),
        "length": weigh(["go on"], prompt_tokens=4000),
    }

    for name, weighed in cases.items():
        assert weighed.difficulty > plain, name
        assert any(signal.startswith(name) for signal in weighed.signals), name


def test_the_end_of_a_long_prompt_counts() -> None:
    """A question after a long text is seen."""
    text = "word " * 10_000 + "Now prove it step by step."

    assert any(signal.startswith("reasoning") for signal in weigh([text], prompt_tokens=1).signals)


@given(
    st.lists(st.text(), max_size=20),
    st.fixed_dictionaries(
        {
            "prompt_tokens": st.integers(0, 10**6),
            "turns": st.integers(0, 1000),
            "tools": st.booleans(),
            "max_tokens": st.integers(0, 10**6),
            "structured": st.booleans(),
        }
    ),
)
def test_difficulty_stays_between_zero_and_one(texts: list[str], options: dict[str, Any]) -> None:
    """Whatever the request is."""
    assert 0 <= weigh(texts, **options).difficulty <= 1


@given(st.lists(st.text(max_size=3000), max_size=20))
def test_no_more_is_looked_at_than_a_start_and_an_end(texts: list[str]) -> None:
    """A long prompt costs no more than a short one."""
    assert len(sample(texts)) <= 2 * SCANNED_CHARACTERS + 2 * len(texts)


def test_tokens_are_counted_by_characters_and_by_bytes_outside_ascii() -> None:
    """Four characters of English, four bytes of anything else, four more for each turn."""
    assert estimate_tokens(["abcdefgh"]) == 2
    assert estimate_tokens(["abcdefgh", "i"], turns=2) == 11
    assert estimate_tokens(["日本語語"]) == 3
    assert estimate_tokens([]) == 0
