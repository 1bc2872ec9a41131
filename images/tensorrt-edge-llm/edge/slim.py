"""
Keep of the package's native code what one device needs: `python -m edge.slim PAYLOAD`, while the image is made.

The package brings code for every device it knows, a gigabyte of it, and takes exactly one. Its loader checks by hash what it
takes, and looks at nothing else; it is asked here whether it takes what is left.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorrt_edgellm
from tensorrt_edgellm._native.detect import DetectedPlatform
from tensorrt_edgellm._native.load import resolve_payload
from tensorrt_edgellm._native.select import load_manifest


def main(argv: Sequence[str] | None = None) -> int:
    """Remove all payloads of the installed package but one."""
    parser = argparse.ArgumentParser(prog="edge.slim")
    parser.add_argument("payload", help="the payload that stays")
    removed_bytes = slim(Path(tensorrt_edgellm.__file__).parent, parser.parse_args(argv).payload)
    print(f"removed {removed_bytes / 2**20:.0f} MiB")  # noqa: T201
    return 0


def slim(package: Path, payload: str) -> int:
    """
    Remove all payloads but one, and return how many bytes that were.

    Raises:
        SystemExit: the package has no such payload, or its loader does not take it any more.

    """
    variants = [one for one in load_manifest(package / "_native" / "variants.json")["variants"] if one["variant_id"] == payload]
    if not variants:
        raise SystemExit(f"wanted the payload {payload}, and the package has none of that name")
    removed_bytes = 0
    for folder in unwanted(package, payload):
        removed_bytes += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder)
    for variant in variants:
        found = resolve_payload(package_root=package, detector=lambda variant=variant: platform_of(variant))
        if found.variant_id != payload:
            raise SystemExit(f"wanted the loader to take {payload}, and it takes {found.variant_id}")
    return removed_bytes


def unwanted(package: Path, payload: str) -> list[Path]:
    """Return the folders of all other payloads."""
    return [path for path in sorted((package / "_native" / "payloads").iterdir()) if path.name != payload]


def platform_of(variant: dict[str, Any]) -> DetectedPlatform:
    """Return what the package would find on a device that this variant is for."""
    return DetectedPlatform(
        python_abi=variant["python_abi"],
        platform_probe_source=variant["platform_probe_source"],
        platform_probe_value=variant["platform_probe_values"][0],
        cpu_arch=variant["cpu_arch"],
        cuda_runtime_soname=variant["cuda_runtime_soname"],
        tensorrt_runtime_soname=variant["tensorrt_runtime_soname"],
        gpu_sm=int(variant["gpu_sm"]),
    )


if __name__ == "__main__":
    raise SystemExit(main())
