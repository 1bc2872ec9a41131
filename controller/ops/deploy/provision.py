"""
A stock system becomes a box: packages, the engine's settings, the box package, a configuration. Then it can be deployed to.

What is there already stays as it is: an engine that runs other people's containers is told to read its settings again, never to
restart; a configuration that somebody wrote is not touched.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from rich.markup import escape

from controller.ops.deploy import commands, engine_settings, fit
from controller.ops.deploy.errors import DeployError, UnfitError
from controller.ops.deploy.host import Host
from controller.ops.deploy.link import Link
from controller.ops.deploy.lock import holding
from controller.ops.deploy.steps import look, through_cuts
from controller.ops.steps import console

FOLDER: Final = commands.INCOMING / "provision"
SETTINGS: Final = "/etc/docker/daemon.json"
CONFIGURATION: Final = "/etc/windlass/appliance.toml"
FIRST_CONFIGURATION: Final = (
    '# Every key and what it means: /usr/share/doc/windlass-box/appliance.toml\n[gateway]\nlisten = "0.0.0.0:8000"\n'
)


def provision(
    link: Link,
    package: Path,
    *,
    folder: Path,
    break_lock: bool,
    problems: Callable[[Host], Iterable[str]] = fit.access_problems,
) -> None:
    """
    Make a box of whatever is there; what is done already is not done again, and a connection that is lost is taken up again.

    Args:
        link: the way to it.
        package: the box package.
        folder: where files lie here until they are copied.
        break_lock: somebody's lock is taken away.
        problems: says why it cannot become one, before anything is changed.

    Raises:
        UnfitError: the system is not one that we know how to do this on.
        DeployError: a step failed, with its last words.

    """

    def provision_once() -> None:
        nonlocal break_lock
        host = _look(link, problems)
        with holding(link, "provision", break_lock=break_lock):
            break_lock = False  # who has taken it from us meanwhile keeps it
            _set_up(link, host, package, folder)

    through_cuts(link, provision_once)
    if not link.rehearses:
        console.print(f"  [green]done[/]  {escape(link.route.name)} has what a box needs", markup=True)


def _look(link: Link, problems: Callable[[Host], Iterable[str]]) -> Host:
    host, name = look(link), link.route.name
    if found := list(problems(host)):
        raise UnfitError([f"{name}: {problem}" for problem in found])
    console.print(f"  {name}: {host.system}, {f'Docker {host.engine}' if host.engine else 'no container engine'}", markup=False)
    return host


def _set_up(link: Link, host: Host, package: Path, folder: Path) -> None:
    _step(link, "packages", lambda: link.follow("packages", say=_say))
    folder.mkdir(parents=True, exist_ok=True)
    link.must("making folders", ["mkdir", "--parents", str(FOLDER), "/etc/docker", "/etc/windlass"])
    _set_engine(link, host, folder)
    _install(link, package)
    _configure(link, folder)
    link.must("tidying up", commands.tidy(FOLDER))  # what a deploy has left beside it, the next one goes on with


def show_key(link: Link) -> None:
    """Say where the box answers, and the key that makes it answer."""
    key = link.run(["cat", f"{commands.HOME}/etc/api-key"])
    where = link.route.name.rpartition("@")[2]
    console.print(f"  http://{where}:8000", markup=False)
    if key.code == 0 and key.out.strip():
        console.print(f"  API key: {key.out.strip()} (on the box: {commands.HOME}/etc/api-key)", markup=False)


def _set_engine(link: Link, host: Host, folder: Path) -> None:
    """Add to the engine's settings what is missing there, have them checked where the engine can, and have them read."""
    there = link.run(["cat", SETTINGS])
    swarm = link.run(["docker", "info", "--format", "{{json .Swarm.LocalNodeState}}"])
    merged = engine_settings.merge(
        there.out if there.code == 0 else "", jetson=bool(host.l4t), swarm=_word(swarm.out) not in {"", "inactive"}
    )
    cut = link.run(["test", "-e", f"{FOLDER}/daemon.json"]).code == 0  # before the engine was told, perhaps
    if merged.added:
        _put_settings(link, merged, folder)
    if merged.added or cut:
        link.must("having them read", ["systemctl", "reload", "docker.service"])
        added = f"{', '.join(merged.added)} added, and " if merged.added else ""
        console.print(f"  [green]done[/]  {SETTINGS}: {added}read without a restart", markup=True)


def _put_settings(link: Link, merged: engine_settings.Merged, folder: Path) -> None:
    (folder / "daemon.json").write_text(merged.text, encoding="utf-8")
    link.copy([str(folder / "daemon.json")], FOLDER)
    checked = link.run(["dockerd", "--validate", "--config-file", f"{FOLDER}/daemon.json"])
    if checked.code and "unknown flag" not in checked.err:  # engines before version 23 cannot check
        raise DeployError(f"{link.route.name}: its engine would not take {', '.join(merged.added)}: {checked.last_words}")
    for argv in commands.put(FOLDER / "daemon.json", SETTINGS):
        link.must("the engine's settings", argv)


def _install(link: Link, package: Path) -> None:
    link.copy([str(package)], FOLDER)
    argv = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", "--allow-downgrades", "--reinstall"]
    argv += ["--option=DPkg::Lock::Timeout=300"]
    link.must("the box package", ["env", "DEBIAN_FRONTEND=noninteractive", *argv, f"{FOLDER}/{package.name}"])
    console.print(f"  [green]done[/]  {package.name}", markup=True)


def _configure(link: Link, folder: Path) -> None:
    if link.run(["test", "-e", CONFIGURATION]).code == 0 and not link.rehearses:
        return
    (folder / "appliance.toml").write_text(FIRST_CONFIGURATION, encoding="utf-8")
    link.copy([str(folder / "appliance.toml")], FOLDER)
    for argv in commands.put(FOLDER / "appliance.toml", CONFIGURATION):
        link.must("the configuration", argv)


def _step(link: Link, what: str, act: Callable[[], int]) -> None:
    if code := act():
        raise DeployError(f"{what} on {link.route.name} ended with status {code}, its own words are above")
    console.print(f"  [green]done[/]  {what}", markup=True)


def _say(line: str) -> None:
    console.print(f"        {line}", style="dim", markup=False)


def _word(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return ""
