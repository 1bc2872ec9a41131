"""Which files of a folder are its weights, and what their headers say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from controller.engines.base import WeightsHeader
from controller.errors import ModelError
from controller.store.gguf import read_gguf
from controller.store.safetensors import INDEX, read_checkpoint

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """
    The weights of one model.

    Attributes:
        header: what they say.
        path: what the engine is given, relative to the folder: the GGUF file, or the folder itself.
        files: every file that belongs to them, by name.
        sha256: of the bytes of their headers.

    """

    header: WeightsHeader
    path: PurePosixPath
    files: tuple[str, ...]
    sha256: str


def read_weights(
    folder: Path, names: Sequence[str], *, file: str | None = None, formats: frozenset[str] | None = None
) -> Weights:
    """
    Find and read the weights of a folder.

    Args:
        folder: the model's folder.
        names: its files.
        file: the one to use, if the manifest names it.
        formats: the formats that may be used, if the manifest names an engine.

    Raises:
        ModelError: there are none, or several and nothing says which.
        WeightsError: they are truncated, lie about their sizes, or are not what their names say.

    """
    chosen = _choose(names, file=file, formats=formats)
    if chosen[0].endswith(".gguf"):
        gguf = read_gguf(folder / chosen[0])
        return Weights(header=gguf.header, path=PurePosixPath(chosen[0]), files=chosen, sha256=gguf.sha256)
    pickles = _pickles(names)
    if pickles:
        # Nothing here would read it, but a library might prefer it.
        raise ModelError(f"{pickles[0]} lies beside the safetensors: a pickle runs code when it is opened; remove it")
    checkpoint = read_checkpoint(folder, chosen)
    return Weights(header=checkpoint.header, path=PurePosixPath(), files=checkpoint.files, sha256=checkpoint.sha256)


def _choose(names: Sequence[str], *, file: str | None, formats: frozenset[str] | None) -> tuple[str, ...]:
    ggufs = _with_suffix(names, ".gguf") if formats is None or "gguf" in formats else ()
    tensors = _with_suffix(names, ".safetensors") if formats is None or "safetensors" in formats else ()
    if file is not None:
        return _named(file, names, tensors)
    if ggufs and tensors:
        raise ModelError(f"wanted one format, got {ggufs[0]} and {tensors[0]}; name one with `file` in model.toml")
    if len(ggufs) > 1:
        raise ModelError(f"wanted one GGUF file, got {len(ggufs)}: {', '.join(ggufs[:4])}; name one with `file` in model.toml")
    if not ggufs and not tensors:
        raise ModelError(_nothing_found(names, formats))
    return ggufs or tensors


def _named(file: str, names: Sequence[str], tensors: tuple[str, ...]) -> tuple[str, ...]:
    if file not in names:
        raise ModelError(f"model.toml names {file!r} as its weights, and there is no such file")
    if file == INDEX:
        return tensors
    if not file.endswith((".gguf", ".safetensors")):
        raise ModelError(f"model.toml names {file!r} as its weights; wanted a .gguf or .safetensors file")
    return (file,)


def _with_suffix(names: Sequence[str], suffix: str) -> tuple[str, ...]:
    # Projectors and adapters lie beside the weights they belong to, under names everybody gives them.
    return tuple(
        sorted(name for name in names if name.endswith(suffix) and not name.startswith(("mmproj", "adapter_model", ".")))
    )


def _pickles(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if name.endswith(_PICKLES)))


def _nothing_found(names: Sequence[str], formats: frozenset[str] | None) -> str:
    wanted = " or ".join(f".{known}" for known in sorted(formats or {"gguf", "safetensors"}))
    pickles = _pickles(names)
    if pickles:
        return f"wanted a {wanted} file, got {pickles[0]}: a pickle runs code when it is opened; convert it to safetensors"
    return f"wanted a {wanted} file, got none; copy the weights into the folder"
