"""An engine file in a bundle has two manifests; they must say the same, and its name must follow from what it was built from."""

from pathlib import Path

from controller.bundles.manifest import EngineItem
from controller.errors import BundleError
from controller.store import engine_manifest
from controller.store.fingerprint import BuildKey


def check_engine_file(folder: Path, item: EngineItem) -> None:
    """
    See that an engine file is the one that its name and the bundle's manifest say.

    Raises:
        BundleError: it is another one.

    """
    try:
        said = engine_manifest.read_manifest(folder)
    except (OSError, ValueError) as exc:
        raise BundleError(f"engine file {item.name}: its {engine_manifest.FILE_NAME} cannot be read; export it again") from exc
    key = BuildKey(
        source=said.source,
        engine=said.engine,
        quantization=said.quantization,
        options=said.options,
        images=said.images,
        device=said.device,
    )
    if {said.fingerprint, key.fingerprint} != {item.name} or (key.lineage, said.device) != (said.lineage, item.device):
        raise BundleError(f"engine file {item.name}: its {engine_manifest.FILE_NAME} is that of another one; export it again")
    sizes = {file.name: file.size_bytes for file in item.files if file.name != engine_manifest.FILE_NAME}
    if sizes != {entry.name: entry.size_bytes for entry in said.files}:
        raise BundleError(f"engine file {item.name}: it has other files than its manifest says; export it again")
