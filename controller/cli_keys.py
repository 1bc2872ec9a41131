"""The verbs of `windlass keys`: they ask the controller itself, since no gateway may make a key."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.console import AsJson, Config, environment, print_json, show_body

keys_app = typer.Typer(help="Make, list and revoke API keys, on the box itself.", no_args_is_help=True)


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key it is, for the list.", show_default=False)] = "",
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="`inference` or `admin`; may be given twice.", show_default="inference")
    ] = None,
    rate_limit_per_min: Annotated[int | None, typer.Option("--rate-limit", min=1, help="Requests a minute.")] = None,
    config: Config = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its secret: this is the only time that it is shown."""
    wanted = scopes or ["inference"]
    if unknown := sorted(set(wanted) - {"inference", "admin"}):
        raise typer.BadParameter(f"wanted inference or admin, got {', '.join(unknown)}", param_hint="--scope")
    body = _call(config, "keys.create", {"scopes": wanted, "name": name, "rate_limit_per_min": rate_limit_per_min})
    if as_json:
        print_json(body)
    else:
        typer.echo(body["secret"])
        typer.echo(f"Key {body['id']} for {', '.join(body['scopes'])}. Keep the secret: it cannot be shown again.", err=True)


@keys_app.command("list")
def list_keys(config: Config = None, *, as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""

    def render(body: Any) -> Iterable[object]:  # noqa: ANN401
        from controller.ops import tables  # noqa: PLC0415

        yield tables.keys_table(body["keys"])

    show_body(_call(config, "keys.list", {}), render, as_json=as_json)


@keys_app.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from the list.", show_default=False)],
    config: Config = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Revoke a key: requests that carry it are refused from now on."""
    body = _call(config, "keys.revoke", {"id": key})
    if as_json:
        print_json(body)
    else:
        typer.echo(f"{body['id']} is revoked")


def _call(config: Path | None, verb: str, arguments: dict[str, object]) -> Any:  # noqa: ANN401
    from controller.config import load_settings  # noqa: PLC0415
    from controller.ops.control import call  # noqa: PLC0415

    return call(load_settings(environment(), path=config).run / "controller.sock", verb, arguments)
