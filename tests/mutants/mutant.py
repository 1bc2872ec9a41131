"""A fault: a piece of text in a module of the core, and what it is replaced by."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault. `before` stands exactly once in the module."""

    name: str
    module: str
    before: str
    after: str

    @property
    def path(self) -> Path:
        """The module's file, relative to the repository."""
        return Path("controller", f"{self.module}.py")

    def source(self) -> str:
        """
        Return the module with the fault in it.

        Raises:
            ValueError: the text is not there, or not once: the module has changed, and this fault must be written anew.

        """
        text = (ROOT / self.path).read_text(encoding="utf-8")
        if (count := text.count(self.before)) != 1:
            raise ValueError(
                f"mutant {self.name!r}: wanted its text once in {self.path}, found it {count} times; adapt the mutant"
            )
        return text.replace(self.before, self.after)
