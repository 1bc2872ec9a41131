"""The verbs of `windlass box`: what the scripts of a box ask this image. Nobody types them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from controller.config import Settings

app = typer.Typer(help="What the scripts of a box ask this image.", no_args_is_help=True)

Config = Annotated[Path | None, typer.Option("--config", envvar="WINDLASS_CONFIG", help="The configuration file.")]
Database = Annotated[Path, typer.Argument(help="The state database.", show_default=False)]
Copy = Annotated[Path, typer.Argument(help="Its copy.", show_default=False)]


@app.command("host-file")
def host_file(config: Config = None) -> None:
    """Print what the controller must see of this host, as a Compose file; the host's root is at /run/host."""
    from controller.ops import box  # noqa: PLC0415
    from controller.ops.host_files import write  # noqa: PLC0415
    from controller.probes.system import HOST_FILES  # noqa: PLC0415

    content = box.host_file(
        _settings(config),
        box.HostSystem(),
        engine_socket="/var/run/docker.sock",
        exists=lambda path: Path(f"{HOST_FILES}{path}").exists(),
    )
    typer.echo(content or write(box.NOTHING), nl=False)


@app.command("settings")
def settings(config: Config = None) -> None:
    """Print what a shell needs of the configuration, a variable a line."""
    from controller.ops import box  # noqa: PLC0415
    from controller.probes.memory import read_memory  # noqa: PLC0415

    typer.echo(box.settings_lines(_settings(config), total_bytes=read_memory().total_bytes), nl=False)


@app.command("save-state")
def save_state(database: Database, copy: Copy) -> None:
    """Copy the state database as it is at one moment."""
    from controller.ops import box  # noqa: PLC0415

    box.save_state(database, copy)


@app.command("mend-state")
def mend_state(database: Database, copy: Copy) -> None:
    """Put a copy in the place of a state database that is not sound; nobody may have it open."""
    from controller.ops import box  # noqa: PLC0415

    typer.echo("replaced by its copy" if box.mend_state(database, copy) else "as it is")


def _settings(config: Path | None) -> "Settings":
    from controller.config import load_settings  # noqa: PLC0415

    return load_settings(os.environ, path=config)
