"""
The verbs of `windlass bundle`: models and their engine files, by a stick or another box.

They work on the folders of the home, beside a running controller and without the network. The controller is asked one thing, what
this box is; where none runs, engine files for another device are taken as well, and never looked at.
"""

from pathlib import Path
from typing import Annotated

import typer

from controller.console import AsJson, Config, environment, print_json, print_parts

bundle_app = typer.Typer(help="Take models and their engine files to other boxes.", no_args_is_help=True)

EngineFiles = Annotated[bool, typer.Option("--engine-files/--no-engine-files", help="Engine files as well.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]

EXIT_FAILED = 1


@bundle_app.command("export")
def export(
    to: Annotated[Path, typer.Option("--to", help="The bundle's folder; what it holds already stays.", show_default=False)],
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Which ones.", show_default=False)] = None,
    config: Config = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All models.")] = False,
    engine_files: EngineFiles = True,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Pack models into a folder. Run again after a cut: it goes on, and what lies there already is compared."""
    from controller.bundles import packing  # noqa: PLC0415
    from controller.bundles.export import Packer  # noqa: PLC0415
    from controller.ops import bundle_lines  # noqa: PLC0415
    from controller.store.digests import be_nice  # noqa: PLC0415

    if bool(models) is every:
        raise typer.BadParameter("wanted names of models, or --all", param_hint="MODEL")
    home = _home(config)
    be_nice()
    with bundle_lines.progress(shown=not as_json and not dry_run) as progress:
        sources = packing.find_sources(home, models or packing.all_models(home), with_engine_files=engine_files)
        outcomes = Packer(root=to, progress=progress).pack(sources, dry_run=dry_run)
    if as_json:
        print_json({"ok": True, "bundle": str(to), "dry_run": dry_run, "folders": [one.as_json() for one in outcomes]})
    else:
        print_parts(bundle_lines.outcome_lines(outcomes, dry_run=dry_run))


@bundle_app.command("import")
def take(
    bundles: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders of bundles.", show_default=False)],
    config: Config = None,
    *,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="MODEL", help="This model; may be given twice.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="In place of a model of the same name with other content.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave a model of the same name with other content.")] = False,
    move: Annotated[bool, typer.Option("--move", help="Take the files out of the bundle as they arrive.")] = False,
    engine_files: EngineFiles = True,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take models from bundles. Run again after a cut: it goes on. Exits with 1 if one of them is damaged."""
    from controller.bundles.arrival import Arrival  # noqa: PLC0415
    from controller.bundles.judging import Wish  # noqa: PLC0415
    from controller.bundles.reporting import State  # noqa: PLC0415
    from controller.ops import bundle_lines  # noqa: PLC0415
    from controller.store.digests import be_nice  # noqa: PLC0415

    if keep and replace:
        raise typer.BadParameter("wanted --keep or --replace, got both", param_hint="--keep")
    home = _home(config)
    wish = Wish(only=frozenset(only or ()), replace=replace, keep=keep, engine_files=engine_files, device=_device(config))
    be_nice()
    with bundle_lines.progress(shown=not as_json and not dry_run) as progress:
        outcomes = Arrival(home=home, wish=wish, progress=progress, move=move).take(bundles, dry_run=dry_run)
    failed = any(one.state is State.FAILED for one in outcomes)
    if as_json:
        print_json({"ok": not failed, "dry_run": dry_run, "folders": [one.as_json() for one in outcomes]})
    else:
        print_parts(bundle_lines.outcome_lines(outcomes, dry_run=dry_run))
    if failed:
        raise typer.Exit(EXIT_FAILED)


@bundle_app.command("show")
def show(
    bundle: Annotated[Path, typer.Argument(metavar="PATH", help="A bundle's folder.", show_default=False)],
    *,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte and compare it.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what a bundle holds, and what of it is missing or damaged. Exits with 1 if something is."""
    from controller.bundles import showing  # noqa: PLC0415
    from controller.ops import bundle_lines  # noqa: PLC0415

    with bundle_lines.progress(shown=verify and not as_json) as progress:
        shown = showing.show(bundle, verify=verify, progress=progress)
    whole = not any(one.problem for one in shown)
    if as_json:
        print_json({"ok": whole, "verified": verify, "folders": [one.as_json() for one in shown]})
    else:
        print_parts([bundle_lines.bundle_table(shown)])
    if not whole:
        raise typer.Exit(EXIT_FAILED)


def _home(config: Path | None) -> Path:
    from controller.config import load_settings  # noqa: PLC0415

    return Path(load_settings(environment(), path=config).home)


def _device(config: Path | None) -> str:
    """Ask a running controller what this box is."""
    from controller.config import load_settings  # noqa: PLC0415
    from controller.errors import WindlassError  # noqa: PLC0415
    from controller.ops.control import call  # noqa: PLC0415

    try:
        told = call(load_settings(environment(), path=config).run / "controller.sock", "status", {})
        return str(told["device"]["fingerprint"])
    except (WindlassError, LookupError, TypeError):
        return ""
