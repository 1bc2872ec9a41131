"""
Conversations for the built-in model, made from the sentences in `talk.toml` and from small tables here.

Every question has one answer, so that a tiny model at temperature 0 has a clear best choice for every token; only the ways to
ask vary. All of it was written for this project.
"""

import dataclasses
import random
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.vocabulary import TURN_END, TURN_START

_SYSTEMS: Final = (
    "You are a helpful assistant.",
    "You are windlass-mini, a very small language model.",
    "Answer briefly.",
    "You are a friendly assistant. Answer in one sentence.",
    "Be kind and be short.",
)
_ASKING: Final = (
    "What is {}?", "What is {}?", "What's {}?", "What is {}", "what is {}?", "what is {}", "Tell me about {}.",
    "Tell me about {}", "Explain {}.", "Please explain {}.", "Can you explain {}?", "Can you tell me what {} is?",
    "Do you know what {} is?", "Explain what {} is.", "Describe {}.", "What do you know about {}?", "What does {} mean?",
    "Please tell me what {} is.", "Hello! What is {}?", "Hi, what is {}?", "I want to know what {} is.",
    "In one sentence, what is {}?", "Define {}.",
)  # fmt: skip
_UNKNOWN: Final = "I am a very small model, and I do not know much about {}. Ask me about ships, computers or the sea."
_CAPITALS: Final = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon", "England": "London",
    "Ireland": "Dublin", "Austria": "Vienna", "Poland": "Warsaw", "Russia": "Moscow", "Greece": "Athens", "Egypt": "Cairo",
    "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana",
    "Peru": "Lima", "Chile": "Santiago", "Norway": "Oslo", "Sweden": "Stockholm", "Denmark": "Copenhagen", "Finland": "Helsinki",
    "Hungary": "Budapest", "Belgium": "Brussels", "Kenya": "Nairobi", "Australia": "Canberra", "Brazil": "Brasilia",
    "Argentina": "Buenos Aires", "the United States": "Washington", "Turkey": "Ankara", "Iran": "Tehran", "Korea": "Seoul",
}  # fmt: skip
_OPPOSITES: Final = (
    ("hot", "cold"), ("big", "small"), ("large", "little"), ("up", "down"), ("left", "right"), ("day", "night"),
    ("good", "bad"), ("old", "young"), ("long", "short"), ("high", "low"), ("fast", "slow"), ("light", "dark"),
    ("heavy", "light"), ("full", "empty"), ("open", "closed"), ("rich", "poor"), ("strong", "weak"), ("happy", "sad"),
    ("first", "last"), ("war", "peace"), ("wet", "dry"), ("true", "false"), ("yes", "no"), ("early", "late"), ("near", "far"),
    ("black", "white"), ("easy", "hard"), ("raise", "lower"),
)  # fmt: skip
_SOUNDS: Final = {
    "dog": "barks", "cat": "meows", "cow": "moos", "lion": "roars", "wolf": "howls", "bird": "sings", "horse": "neighs",
    "sheep": "bleats", "duck": "quacks", "owl": "hoots", "bee": "buzzes", "pig": "grunts", "snake": "hisses",
}  # fmt: skip
_COLORS: Final = {
    "the sky": "blue", "the sea": "blue", "grass": "green", "snow": "white", "coal": "black", "blood": "red", "milk": "white",
    "a lemon": "yellow", "the sun": "yellow", "a leaf": "green", "the night": "black", "gold": "yellow", "Moby Dick": "white",
}  # fmt: skip
_NAMES: Final = ("Anna", "Tom", "Mary", "John", "Ruth", "Peter", "Clara", "Henry", "Emma", "Jack")
_VESSELS: Final = ("ship", "boat", "whaler", "ferry", "schooner")
_LOADS: Final = ("the anchor", "a barrel of oil", "a heavy stone", "an old bell", "a chest of gold", "a broken mast")
_WEATHER: Final = ("The sun was bright", "The wind was cold", "The sea was calm", "A storm was near", "It was a gray morning")


_SENTENCES: Final = Path(__file__).with_name("talk.toml")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One question and its answer."""

    ask: str
    say: str


def load(path: Path = _SENTENCES) -> list[list[Exchange]]:
    """Return the exchanges of `talk.toml`: for each answer, all the ways to ask for it."""
    table = tomllib.loads(path.read_text())
    topics = [
        [Exchange(ask=form.format(name), say=topic["says"]) for name in topic["names"] for form in _ASKING]
        for topic in table["topic"]
    ]
    turns = [[Exchange(ask=ask, say=turn["says"]) for ask in turn["asks"]] for turn in table["turn"]]
    return topics + turns


def conversation(chance: random.Random, known: Sequence[Sequence[Exchange]], words: Sequence[str]) -> str:
    """
    Make up one conversation in the form of the chat template.

    Args:
        chance: where the dice come from; the same seed gives the same conversation.
        known: the exchanges of `load()`.
        words: what questions about unknown things ask for.

    """
    turns = chance.choices((1, 2, 3, 4), (6, 3, 2, 1))[0]
    parts = [("system", chance.choice(_SYSTEMS))] if chance.random() < 0.2 else []
    for _ in range(turns):
        exchange = _exchange(chance, known, words)
        parts += [("user", _reword(chance, exchange.ask)), ("assistant", exchange.say)]
    return "".join(f"{TURN_START}{role}\n{text}{TURN_END}\n" for role, text in parts)


def story(chance: random.Random) -> str:
    """Tell a very short story; the model learns from many of them how one goes."""
    first, second = chance.sample(_NAMES, 2)
    vessel, load_ = chance.choice(_VESSELS), chance.choice(_LOADS)
    return (
        f"Once upon a time, {first} and {second} sailed on a small {vessel}. "
        f"{chance.choice(_WEATHER)}, and they had to lift {load_}. "
        f"It was too heavy for {first}, and it was too heavy for {second}. Then they found the old windlass on the deck. "
        f"They wound the rope around the drum and turned the crank together. Slowly {load_} came up. "
        f'"{chance.choice(("What a good machine!", "We did it!", "Well done!"))}" said {second}, and they sailed home.'
    )


def _exchange(chance: random.Random, known: Sequence[Sequence[Exchange]], words: Sequence[str]) -> Exchange:
    if chance.random() < 0.64:
        return chance.choice(chance.choice(known))
    made: Callable[[], Exchange] = chance.choice(
        (
            lambda: _sum(chance),
            lambda: _capital(chance),
            lambda: _opposite(chance),
            lambda: _sound(chance),
            lambda: _color(chance),
            lambda: _echo(chance, words),
            lambda: _story(chance),
            *[lambda: _unknown(chance, words)] * 5,
        )
    )
    return made()


def _sum(chance: random.Random) -> Exchange:
    a, b = chance.randint(0, 5), chance.randint(0, 5)
    form = chance.choice(
        ("What is {} plus {}?", "What is {} + {}?", "{} + {}", "Add {} and {}.", "How much is {} plus {}?", "{}+{}?")
    )
    return Exchange(ask=form.format(a, b), say=f"{a} plus {b} is {a + b}.")


def _capital(chance: random.Random) -> Exchange:
    country = chance.choice(tuple(_CAPITALS))
    form = chance.choice(("What is the capital of {}?", "What's the capital of {}?", "Name the capital of {}.", "capital of {}"))
    return Exchange(ask=form.format(country), say=f"The capital of {country} is {_CAPITALS[country]}.")


def _opposite(chance: random.Random) -> Exchange:
    one, other = chance.choice(_OPPOSITES)
    form = chance.choice(("What is the opposite of {}?", "The opposite of {}?", "Tell me the opposite of {}."))
    return Exchange(ask=form.format(one), say=f"The opposite of {one} is {other}.")


def _sound(chance: random.Random) -> Exchange:
    animal = chance.choice(tuple(_SOUNDS))
    form = chance.choice(("What does a {} do?", "What sound does a {} make?", "Which sound does a {} make?"))
    return Exchange(ask=form.format(animal), say=f"A {animal} {_SOUNDS[animal]}.")


def _color(chance: random.Random) -> Exchange:
    thing = chance.choice(tuple(_COLORS))
    form = chance.choice(("What color is {}?", "What colour is {}?", "Which color has {}?", "What is the color of {}?"))
    return Exchange(ask=form.format(thing), say=f"{thing[0].upper()}{thing[1:]} is {_COLORS[thing]}.")


def _echo(chance: random.Random, words: Sequence[str]) -> Exchange:
    said = " ".join(chance.sample(words, chance.randint(1, 4)))
    form = chance.choice(("Say {}.", "Repeat after me: {}", "Please say: {}", "Repeat: {}", "Say the word {}."))
    return Exchange(ask=form.format(said), say=said)


def _story(chance: random.Random) -> Exchange:
    form = chance.choice(
        ("Tell me a story.", "Tell a story.", "Once upon a time", "Do you know a story?", "Write a short story.")
    )
    # One story, always the same, so that greedy decoding has one best continuation to follow.
    return Exchange(ask=form, say=story(random.Random(1)))  # noqa: S311  # reproducible on purpose


def _unknown(chance: random.Random, words: Sequence[str]) -> Exchange:
    word = chance.choice(("{}", "{}", "a {}", "the {}", "{} {}")).format(*chance.sample(words, 2))
    form = chance.choice((*_ASKING, "Who is {}?", "Where is {}?", "How do I {}?", "Why is {} important?", "Write about {}."))
    return Exchange(ask=form.format(word), say=_UNKNOWN.format(word))


def _reword(chance: random.Random, ask: str) -> str:
    roll = chance.random()
    if roll < 0.08:
        return ask.lower()
    if roll < 0.14:
        return ask.rstrip(".?!")
    if roll < 0.18 and not ask.lower().startswith(("please", "hi", "hello", "hey")):
        return f"Please: {ask}"
    return ask
