"""
The verbs of `windlass`.

Tables for people, `--json` for programs. Heavy modules are imported by the verbs that need them, so that each starts quickly.
"""

import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from controller.cli_box import app as box_app
from controller.cli_bundle import bundle_app
from controller.cli_keys import keys_app
from controller.console import AsJson, Config, environment, live, print_json, print_parts, show_body
from controller.errors import AnswerError, BundleRefusedError, ConfigError, UnreachableError, WindlassError

if TYPE_CHECKING:
    from controller.config import Settings
    from controller.ops.client import Api

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_REFUSED: Final = 4

_EPILOG: Final = (
    "Exit codes: 0 it worked; 1 it was tried and failed, or problems were found; 2 the command line or the configuration is "
    "wrong; 3 the gateway or the controller cannot be reached; 4 it was refused.\n\n"
    "Environment: WINDLASS_URL (the gateway, http://127.0.0.1:8000 by default), WINDLASS_API_KEY (a key for it), "
    "WINDLASS_CONFIG, WINDLASS_HOME, WINDLASS_RUN."
)

app = typer.Typer(
    help="Many models on disk, a few in memory, one API in front.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys_app, name="keys")
app.add_typer(box_app, name="box", hidden=True)
app.add_typer(bundle_app, name="bundle")

Url = Annotated[str | None, typer.Option("--url", envvar="WINDLASS_URL", help="Where the gateway is.", show_default=False)]
Model = Annotated[str, typer.Argument(help="The model's name.", show_default=False)]


def main() -> NoReturn:
    """Run one verb and exit with the code that says how it went; an error of ours is told in words, never by a traceback."""
    try:
        app()
    except WindlassError as exc:
        _end([exc])
    except ExceptionGroup as group:  # what ended a process whose tasks end together
        ours, others = group.split(WindlassError)
        if ours is None or others is not None:
            raise
        _end(list(_leaves(ours)))
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; what is still buffered must not fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    raise AssertionError("typer exits by itself")


def _end(errors: Sequence[WindlassError]) -> NoReturn:
    for exc in errors:
        typer.echo(f"windlass: {exc}", err=True)
    sys.exit(exit_code(errors[0]))


def _leaves(group: ExceptionGroup[WindlassError]) -> Iterable[WindlassError]:
    for exc in group.exceptions:
        if isinstance(exc, ExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc


def exit_code(exc: WindlassError) -> int:
    """Return the exit code for an error."""
    match exc:
        case UnreachableError():
            return EXIT_UNREACHABLE
        case AnswerError(refused=True) | BundleRefusedError():
            return EXIT_REFUSED
        case ConfigError():
            return EXIT_USAGE
        case _:
            return EXIT_FAILED


# The two processes of the appliance.


@app.command(rich_help_panel="On the box")
def serve(config: Config = None) -> None:
    """Run the controller: the only owner of the container engine."""
    _hold_back(signal.SIGTERM)
    settings = _settings(config)
    _configure_logs(settings)
    from controller import app as controller_app  # noqa: PLC0415

    controller_app.run(settings)


@app.command(rich_help_panel="On the box")
def gateway(config: Config = None) -> None:
    """Run a gateway: the HTTP API, without any right to the container engine."""
    _hold_back(signal.SIGTERM, signal.SIGUSR1)
    settings = _settings(config)
    _configure_logs(settings)
    from controller.gateway import app as gateway_app  # noqa: PLC0415

    gateway_app.run(settings)


@app.command(rich_help_panel="On the box")
def check(config: Config = None, *, as_json: AsJson = False) -> None:
    """List every problem of configuration and host, with what to do about it. Exits with 1 if one of them is an error."""
    from controller.ops import survey  # noqa: PLC0415
    from controller.ops.check.rules import findings as judge  # noqa: PLC0415
    from controller.ops.check.values import Severity  # noqa: PLC0415

    facts = survey.survey(environment(), config=config)
    findings = judge(facts)
    failed = any(finding.severity is Severity.ERROR for finding in findings)
    if as_json:
        from controller import reports  # noqa: PLC0415

        device = reports.device_row(facts.device)
        print_json({"ok": not failed, "device": device, "findings": [finding.as_json() for finding in findings]})
    else:
        from controller.ops import tables  # noqa: PLC0415

        print_parts([tables.device_line(facts.device), *tables.findings_lines(findings)])
    if failed:
        raise typer.Exit(EXIT_FAILED)


@app.command(rich_help_panel="On the box")
def doctor(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these.", show_default=False)] = None,
    config: Config = None,
    *,
    fix: Annotated[bool, typer.Option("--fix", help="Do it; without this nothing is changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what could be done about what `check` finds, or do what is safe of it. Exits with 1 if something failed."""
    from controller.ops import doctor as doctors  # noqa: PLC0415
    from controller.ops import survey  # noqa: PLC0415
    from controller.ops.check.rules import findings as judge  # noqa: PLC0415
    from controller.probes.system import LocalSystem  # noqa: PLC0415

    if fix and not doctors.is_root():
        raise typer.BadParameter("changing the system needs root: sudo windlass doctor --fix", param_hint="--fix")
    deeds = doctors.plan(judge(survey.survey(environment(), config=config)), names or ())
    if fix:
        deeds = tuple(doctors.treat(deed, system=LocalSystem(), hands=doctors.LocalHands()) for deed in deeds)
    failed = any(deed.state is doctors.State.FAILED for deed in deeds)
    if as_json:
        print_json({"ok": not failed, "changed": fix, "remedies": [deed.as_json() for deed in deeds]})
    else:
        from controller.ops.doctor_lines import deed_lines  # noqa: PLC0415

        print_parts(deed_lines(deeds))
    if failed:
        raise typer.Exit(EXIT_FAILED)


# Questions to the gateway.


@app.command(rich_help_panel="Look")
def ps(url: Url = None, *, as_json: AsJson = False) -> None:
    """List the workers: what runs, the memory it holds, and who waits."""

    def render(status: Any) -> Iterable[object]:  # noqa: ANN401
        from controller.ops import tables  # noqa: PLC0415

        yield tables.workers_table(status["workers"])
        if status["queue"]:
            yield ""
            yield tables.queue_table(status["queue"])

    show_body(_api(url).get("/status"), render, as_json=as_json)


@app.command(rich_help_panel="Look")
def models(url: Url = None, *, as_json: AsJson = False) -> None:
    """List every registered model, and every folder that cannot be served."""

    def render(body: Any) -> Iterable[object]:  # noqa: ANN401
        from controller.ops import tables  # noqa: PLC0415

        yield tables.models_table(body["models"])
        yield from tables.model_notes(body)

    show_body(_api(url).get("/models"), render, as_json=as_json)


@app.command(rich_help_panel="Look")
def status(url: Url = None, *, as_json: AsJson = False) -> None:
    """Say how the box is doing: memory, disk, heat, workers, queue. Exits with 1 when it is failing."""

    def render(body: Any) -> Iterable[object]:  # noqa: ANN401
        from controller.ops import tables  # noqa: PLC0415

        return tables.status_lines(body)

    body = _api(url).get("/status")
    show_body(body, render, as_json=as_json)
    if body["state"] == "failing":
        raise typer.Exit(EXIT_FAILED)


@app.command(rich_help_panel="Look")
def plan(model: Model, url: Url = None, *, as_json: AsJson = False) -> None:
    """Say what a request for a model would do now: what would be evicted and why. Exits with 4 if it would be refused."""
    from controller.ops.client import segment  # noqa: PLC0415

    def render(body: Any) -> Iterable[object]:  # noqa: ANN401
        from controller.ops import tables  # noqa: PLC0415

        return tables.plan_lines(body)

    body = _api(url).get(f"/plan/{segment(model)}")
    show_body(body, render, as_json=as_json)
    if body["answer"] == "refuse":
        raise typer.Exit(EXIT_REFUSED)


@app.command(rich_help_panel="Look")
def logs(
    model: Model,
    url: Url = None,
    *,
    tail: Annotated[int, typer.Option(min=1, max=10_000, help="How many lines, from the end.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Print what a model's worker wrote."""
    from controller.ops.client import segment  # noqa: PLC0415

    body = _api(url).get(f"/models/{segment(model)}/logs", query={"tail": tail})
    if as_json:
        print_json(body)
    else:
        for line in body["lines"]:
            typer.echo(line)


# Changes.


@app.command(rich_help_panel="Change")
def load(
    model: Model,
    url: Url = None,
    *,
    wait: Annotated[bool, typer.Option(help="Come back when it is resident, or at once.")] = True,
    as_json: AsJson = False,
) -> None:
    """Load a model, evicting others if it must be."""
    _change(_api(url).post("/load_model", {"model": model, "wait": wait}), as_json=as_json)


@app.command(rich_help_panel="Change")
def unload(
    model: Model,
    url: Url = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Even if it is pinned, or busy: its callers get an error.")] = False,
    as_json: AsJson = False,
) -> None:
    """Unload a model and give its memory back."""
    _change(_api(url).post("/unload_model", {"model": model, "force": force}), as_json=as_json)


@app.command(rich_help_panel="Change")
def build(
    model: Model,
    url: Url = None,
    *,
    quantization: Annotated[
        str | None,
        typer.Option(help="Another one than its model.toml says: bf16, f16, q8_0, q4_k_m, q4_0 or auto.", show_default=False),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Show how far it is until it ends, or come back at once.")] = True,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop building for it until it is asked for.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build a model's engine file: its weights in another quantisation, or with an adapter merged."""
    from controller.ops import building  # noqa: PLC0415

    api = _api(url)
    if cancel:
        show_body(
            api.post("/cancel_build", {"model": model}),
            lambda told: [f"the build of {told['model']} is stopped"],
            as_json=as_json,
        )
        return
    wanted = {"model": model} | ({"quantization": quantization} if quantization else {})
    row = api.post("/build_model", wanted)
    if wait:
        with live() as show:
            row = building.follow(
                row, look=lambda: api.get("/builds")["builds"], show=lambda one: None if as_json else show(building.line(one))
            )
    show_body(row, lambda told: [building.line(told)], as_json=as_json)
    if row["state"] in ("failed", "cancelled"):
        raise typer.Exit(EXIT_FAILED)


@app.command(rich_help_panel="Look")
def builds(url: Url = None, *, as_json: AsJson = False) -> None:
    """List the engine files: built, under way, waiting or failed, and why."""

    def render(body: Any) -> Iterable[object]:  # noqa: ANN401
        from controller.ops import tables  # noqa: PLC0415

        yield tables.builds_table(body["builds"])

    show_body(_api(url).get("/builds"), render, as_json=as_json)


@app.command(rich_help_panel="Change")
def ask(
    model: Annotated[str, typer.Argument(help="The model's name, or `auto`.", show_default=False)],
    prompt: Annotated[str, typer.Argument(help="What to ask; `-` reads it from standard input.", show_default=False)],
    url: Url = None,
    *,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 512,
) -> None:
    """Ask a model one question and print the answer as it comes."""
    text = sys.stdin.read() if prompt == "-" else prompt
    request = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "stream": True,
    }
    for event in _api(url).stream("/v1/chat/completions", request):
        for choice in event.get("choices") or ():
            typer.echo(choice["delta"].get("content") or "", nl=False)
    typer.echo()


@app.command(rich_help_panel="Look")
def version(*, as_json: AsJson = False) -> None:
    """Print the version of this command."""
    from controller import __version__  # noqa: PLC0415

    if as_json:
        print_json({"version": __version__})
    else:
        typer.echo(f"windlass {__version__}")


def _hold_back(*signals: signal.Signals) -> None:
    """
    Keep signals for the process that begins until it can hear them.

    A slow box takes long to read the modules with its handlers; until then a signal would kill it, or as process 1 be lost.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def _settings(config: Path | None) -> "Settings":
    from controller.config import load_settings  # noqa: PLC0415

    return load_settings(os.environ, path=config)


def _configure_logs(settings: "Settings") -> None:
    from controller import telemetry  # noqa: PLC0415

    telemetry.configure(level=settings.log.level, json_lines=settings.log.json_lines)


def _api(url: str | None) -> "Api":
    from controller.ops.client import DEFAULT_URL, Api  # noqa: PLC0415

    return Api(url or DEFAULT_URL, key=os.environ.get("WINDLASS_API_KEY"))


def _change(body: Any, *, as_json: bool) -> None:  # noqa: ANN401
    def render(changed: Any) -> Iterable[object]:  # noqa: ANN401
        from controller.ops import tables  # noqa: PLC0415

        yield tables.changed_line(changed)

    show_body(body, render, as_json=as_json)
    if body["state"] == "failed":
        raise typer.Exit(EXIT_FAILED)
