"""
The server's cache, made of links: an engine file is mounted to be read, and the server locks, stamps and prunes its cache.

Where a cache entry is, follows from the checkpoint and the shape that was built for; the server's own functions say where, and
whether it is complete. So what it finds is what it would have built itself, and a change in how it looks is noticed here.
"""

from pathlib import Path
from typing import Final

from experimental.server.config import ModelConfig
from experimental.server.runtime.engine_build import BuildOptions, _is_ready, bundle_cache_path, resolve_model_dir

NOT_OF_THE_BUNDLE: Final = "manifest.json"
"""Ours, and not the builder's."""


class BundleError(Exception):
    """The engine file cannot be served with this checkpoint and these arguments."""


def build_options(config: ModelConfig) -> BuildOptions:
    """Return what the server would build for, of all that can be asked of it here."""
    return BuildOptions(
        max_input_len=config.max_input_len,
        max_batch_size=config.max_batch_size,
        max_kv_cache_capacity=config.max_kv_cache_capacity,
    )


def lay_out(engine_file: Path, config: ModelConfig) -> Path:
    """
    Link the engine file's contents to where the server will look for them, and return that folder.

    Raises:
        BundleError: the server would not take it.

    """
    options = build_options(config)
    checkpoint = resolve_model_dir(config.model, config.cache_dir)
    folder = Path(bundle_cache_path(checkpoint, config.cache_dir, options))
    for path in sorted(engine_file.rglob("*")):
        name = path.relative_to(engine_file)
        if path.is_dir():
            (folder / name).mkdir(parents=True, exist_ok=True)
        elif str(name) != NOT_OF_THE_BUNDLE:
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    if not _is_ready(checkpoint, str(folder), options):
        raise BundleError(
            f"wanted an engine for {config.model} with {options.max_batch_size} x {options.max_kv_cache_capacity} tokens and "
            f"inputs of {options.max_input_len}, got another one, or part of one, in {engine_file}; build it anew"
        )
    return folder
