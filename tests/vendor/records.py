"""What a vendor's program takes, written down from its source: read strictly, as its own parser would."""

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Record:
    """
    One program.

    Attributes:
        raw: the whole record.
        options: what is known of each option, by each of its names.

    """

    raw: Mapping[str, Any]
    options: Mapping[str, Mapping[str, Any]]

    def parse(self, argv: Sequence[str]) -> dict[str, str]:
        """
        Return the values that *argv* gives, options by their first name.

        Raises:
            ValueError: an option is unknown, given twice, without a value, or with one that it does not take.

        """
        found: dict[str, str] = {}
        positional = iter(self.raw.get("arguments", ()))
        words = iter(argv)
        for word in words:
            if not word.startswith("--"):
                name = next(positional, None)
                if name is None:
                    raise ValueError(f"takes no argument {word!r}")
                found[name] = word
                continue
            option = self.options.get(word)
            if option is None:
                raise ValueError(f"knows no {word}")
            if option["name"] in found:
                raise ValueError(f"{word} is given twice")
            found[option["name"]] = _value(word, option, words)
        if missing := list(positional):
            raise ValueError(f"wants {', '.join(missing)}")
        return found


def _value(word: str, option: Mapping[str, Any], words: Iterator[str]) -> str:
    if option["type"] == "flag":
        return "true"
    value = next(words, None)
    if value is None:
        raise ValueError(f"{word} wants a value")
    match option["type"]:
        case "whole":
            int(value)
        case "number":
            float(value)
        case "choice" if value not in option["choices"]:
            raise ValueError(f"{word} wants one of {', '.join(option['choices'])}, got {value!r}")
    return value


def record(name: str) -> Record:
    """Read the record of this name."""
    raw = json.loads((HERE / f"{name}.json").read_text("utf-8"))
    options = {
        spelling: {**option, "name": first}
        for first, option in raw["options"].items()
        for spelling in (first, *option.get("also", ()))
    }
    return Record(raw, options)


def is_installed(package: str) -> bool:
    """Whether the vendor's package itself can be asked."""
    return importlib.util.find_spec(package) is not None
