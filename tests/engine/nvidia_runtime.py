#!/usr/bin/env python3
"""
Stand in for NVIDIA's container runtime: a program around `runc` that does what that one does to a container, without a GPU.

It reads the variables that the real one reads, adds a device node that root and one group may open, and hands on to `runc`. What
it was asked is written down beside it, a line each. It runs on the host's own Python, outside of any environment.
"""

import itertools
import json
import os
import shutil
import sys
from pathlib import Path

NODE = "/dev/nvidia-stand-in"
GROUP = 4711


def bundle(argv: list[str]) -> Path | None:
    """Return the folder of the container that is to be created, if one is."""
    if "create" not in argv:
        return None
    for before, word in itertools.pairwise(argv):
        if before in {"--bundle", "-b"}:
            return Path(word)
    return None


def add_gpu(folder: Path, notes: Path) -> None:
    """Do to the container's description what its variables ask for."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    env = dict(entry.partition("=")[::2] for entry in config["process"]["env"])
    visible = env.get("NVIDIA_VISIBLE_DEVICES", "")
    with notes.open("a") as out:
        out.write(json.dumps({"host": config.get("hostname", ""), "visible": visible}) + "\n")
    if visible in {"", "void", "none"}:
        return
    # The null device under another name: what counts is who may open it.
    node = {"path": NODE, "type": "c", "major": 1, "minor": 3, "fileMode": 0o660, "uid": 0, "gid": GROUP}
    config["linux"].setdefault("devices", []).append(node)
    config["linux"]["resources"].setdefault("devices", []).append(
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}
    )
    path.write_text(json.dumps(config))


def main() -> None:
    """Change what is created, and hand on."""
    folder = bundle(sys.argv)
    if folder is not None:
        add_gpu(folder, Path(__file__).resolve().with_name("asked"))
    runc = shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin")
    assert runc is not None, "there is no runc"
    os.execv(runc, ["runc", *sys.argv[1:]])  # noqa: S606 -- that is what it is for


if __name__ == "__main__":
    main()
