"""What the registered models want built, and what is served of them until it is."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from controller.engines.builds import BuildRecipe
from controller.spec import ModelName, ModelSpec
from controller.store.engine_files import EngineFile
from controller.store.fingerprint import BuildKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """
    One engine file that a model wants.

    Attributes:
        model: whose it is.
        source: the model's folder.
        key: what it is built from; names it.
        recipe: how it is built.
        reason: why it is this one and no other, for people.
        spec: the model as it will be; of a file that is there, as it is.
        file: the file, if it is there.
        older: where neither the file nor an older one can be served, an older one whose hash is still to be compared.
        served: what is served now: the file, an older one, the source, or nothing.

    """

    model: ModelName
    source: PurePosixPath
    key: BuildKey
    recipe: BuildRecipe
    reason: str
    spec: ModelSpec
    file: EngineFile | None = None
    older: EngineFile | None = None
    served: ModelSpec | None = None

    @property
    def fingerprint(self) -> str:
        """Which file it is."""
        return self.key.fingerprint

    @property
    def to_compare(self) -> EngineFile | None:
        """What is there and could be served, if its hash were compared."""
        return self.file or self.older

    @property
    def done(self) -> bool:
        """There is nothing left to do for it."""
        return self.file is not None and self.file.verified
