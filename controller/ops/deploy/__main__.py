"""
Deploy this checkout to boxes, or take them back: `python -m controller.ops.deploy deploy --host box`.

`make deploy`, `make rollback` and `make provision` call it; what it exits with is told in `errors`.
"""

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from controller.errors import ConfigError, WindlassError
from controller.ops import box_deb, recipes, release
from controller.ops.deploy import fit, fleet, stock
from controller.ops.deploy import provision as provisioning
from controller.ops.deploy.cargo import Wish, compose_release
from controller.ops.deploy.errors import DeployError, UnusableError
from controller.ops.deploy.inventory import read_hosts
from controller.ops.deploy.link import Link
from controller.ops.deploy.rehearsal import Rehearsal
from controller.ops.deploy.steps import Boat, Return, through_cuts
from controller.ops.images import Builder, find_target, said_target
from controller.ops.release import PROJECT
from controller.ops.steps import console
from controller.ops.targets import CPU
from controller.probes.system import LocalSystem

FOLDER: Final = PROJECT / "build" / "deploy"
INTERRUPTED: Final = 130

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Boxes, by ssh.")

Hosts = Annotated[str, typer.Option("--host", help="Boxes as ssh knows them, with commas between.")]
Inventory = Annotated[Path | None, typer.Option("--inventory", help="A file with one box a line.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; show every command.")]
BreakLock = Annotated[bool, typer.Option("--break-lock", help="Take the lock away from whoever holds it.")]
Engines = Annotated[str, typer.Option("--engines", help="Images beside the controller's, with spaces between; all without it.")]


@app.command()
def deploy(
    host: Hosts = "",
    inventory: Inventory = None,
    engines: Engines = "",
    *,
    dry_run: DryRun = False,
    break_lock: BreakLock = False,
) -> None:
    """Bring this checkout's release to boxes, one after the other."""
    names = _names(host, inventory)
    with _alone():
        wish = _wish(engines.split(), make=not dry_run, break_lock=break_lock)
        console.print(f"release [bold]{wish.release.version}[/]: {', '.join(wish.release.tags)}", markup=True)
        fleet.each(names, lambda link: Boat(link, wish).deploy(), link=_link(dry_run=dry_run))
        if not dry_run:
            shutil.rmtree(FOLDER, ignore_errors=True)  # kept until all of them are done, since what was cut is run again


@app.command()
def rollback(host: Hosts = "", inventory: Inventory = None, *, dry_run: DryRun = False, break_lock: BreakLock = False) -> None:
    """Take boxes back to the release that each of them ran before."""
    fleet.each(_names(host, inventory), lambda link: Return(link, break_lock=break_lock).go_back(), link=_link(dry_run=dry_run))


@app.command()
def provision(
    host: Hosts = "",
    inventory: Inventory = None,
    engines: Engines = "",
    *,
    dry_run: DryRun = False,
    break_lock: BreakLock = False,
) -> None:
    """Make boxes of stock systems, and bring this checkout's release to them."""
    names = _names(host, inventory)

    def make_box(link: Link) -> None:
        provisioning.provision(
            link,
            package,
            folder=FOLDER / "provision",
            break_lock=break_lock,
            problems=lambda host: (*fit.access_problems(host), *fit.target_problems(host, wish.target, guessed=wish.guessed)),
        )
        if link.rehearses:
            console.print("  # then what make deploy does; DRY_RUN=1 shows it once this is done", markup=False)
            return
        Boat(link, wish).deploy()
        through_cuts(link, lambda: provisioning.show_key(link))

    with _alone():
        wish = _wish(engines.split(), make=not dry_run, break_lock=break_lock)
        package = Path("windlass-box.deb") if dry_run else box_deb.build()
        fleet.each(names, make_box, link=_link(dry_run=dry_run))


def main() -> None:
    """Run one verb; an error is a sentence, and its kind is the status."""
    try:
        app()
    except SystemExit as exc:  # typer makes this of an interruption, too
        if exc.code != INTERRUPTED:
            raise
        text = "stopped here; a switch that has begun goes on on the box, and the same command finds it again"
        status = INTERRUPTED
    except DeployError as exc:
        text, status = str(exc), exc.status
    except ConfigError as exc:
        text, status = str(exc), UnusableError.status
    except (WindlassError, OSError) as exc:  # of this machine: a program that is not here, a disk that is full
        text, status = str(exc), DeployError.status
    console.print(text, style="red", markup=False)
    sys.exit(status)


def _names(hosts: str, inventory: Path | None) -> tuple[str, ...]:
    try:
        text = inventory.read_text(encoding="utf-8") if inventory else None
    except (OSError, UnicodeDecodeError) as exc:
        raise UnusableError(f"the inventory cannot be read: {exc}") from exc
    return read_hosts(hosts, text)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Have the folder of layers and files for this process: two at once would send each other's, and take them away."""
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with FOLDER.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise UnusableError(
                "another deploy of this checkout is under way here: wait for its end, or name all boxes at once, HOST=box,box2"
            ) from exc
        yield


def _link(*, dry_run: bool) -> Callable[[str], Link]:
    kind = Rehearsal if dry_run else Link
    return lambda name: kind(name, environ=os.environ)


def _wish(engines: list[str], *, make: bool, break_lock: bool) -> Wish:
    """Read this checkout: what its release is, and which of its images are here; make those that can be made here."""
    target = find_target(PROJECT, os.environ, LocalSystem())
    builder = Builder(PROJECT, environ=os.environ, target=target)
    chosen = recipes.find_recipes(["controller", *engines] if engines else (), target)
    if make and builder.makes_here:
        builder.record(builder.ensure(recipe.name for recipe in chosen))
    tags = {recipe.variable: builder.tag(recipe) for recipe in chosen}
    made = compose_release(
        release.find_version(),
        tags,
        settings={"WINDLASS_USE_GPU": "false" if target == CPU else "true"},
        files={name: (PROJECT / "compose" / name).read_text(encoding="utf-8") for name in release.COMPOSE_FILES},
        chosen=engines,
    )
    return Wish(
        release=made,
        images=stock.find_images(tags.values()),
        target=target,
        folder=FOLDER,
        guessed=said_target(PROJECT, os.environ) is None,
        break_lock=break_lock,
    )


if __name__ == "__main__":
    main()
