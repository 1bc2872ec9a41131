"""
Who a board is to updates: `python -m controller.ops.flash.identity FOLDER --board NAME`.

Which bundles it takes and from whom, and what its own scripts must know of it, as files that are copied over its root file
system: the same that an image of ours has for its own kind of box.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from controller.errors import WindlassError
from controller.ops.appliance import keys, rauc
from controller.ops.release import PROJECT
from controller.units import GIB

SWAP_BYTES: Final = 8 * GIB
"""For the jobs that build engine files; models never swap."""


def target_variables(board: str) -> str:
    """Write what the box's own scripts must know of what it is: `/usr/share/windlass/target.env`."""
    return f"TARGET={board}\nCOMPATIBLE={compatible(board)}\nSWAP_BYTES={SWAP_BYTES}\n"


def compatible(board: str) -> str:
    """Name the bundles that a kind of board takes, so that no two kinds take each other's."""
    return f"windlass-{board}"


def main() -> int:
    """Write the files that say who a board is to updates."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="where they go; what is there is replaced")
    parser.add_argument("--board", required=True, help="the board's name")
    given = parser.parse_args()
    try:
        trusted = keys.ensure_keys(PROJECT, os.environ)
    except WindlassError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    if trusted.development:
        sys.stderr.write(f"{keys.WARNING}\n")
    shutil.rmtree(given.folder, ignore_errors=True)
    updates, shared = given.folder / "etc" / "rauc", given.folder / "usr" / "share" / "windlass"
    updates.mkdir(parents=True)
    shared.mkdir(parents=True)
    shutil.copyfile(trusted.trusted, updates / "keyring.pem")
    text = rauc.system_configuration(given.board, compatible=compatible(given.board), revokes=trusted.revokes)
    (updates / "system.conf").write_text(text, encoding="ascii")
    (shared / "target.env").write_text(target_variables(given.board), encoding="ascii")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
