"""A machine that Windlass runs on, as its owner sees it: the key from the console, the gateway through the network, a shell."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.stack import wait_until
from controller.ops.client import Api
from tests.appliance.disk import Disk
from tests.appliance.vm import Vm
from tests.system.talk import Caller

HOME: Final = "/var/lib/windlass"
NAME: Final = "windlass-mini"
"""The model that every box brings along."""
API_KEY: Final = r"API key +(wl_\S+)"
"""How the key is told on the console, at the first start and never again."""
FIRST_WITHIN_S: Final = 900.0
"""Until the key is told, with images being unpacked by processors of software."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstBoot:
    """
    What came of a machine's first start.

    Attributes:
        disk: as it was when the machine was switched off in order; tests put layers over it.
        key: the API key.
        console: everything that was said.
        healthy_s: from the power switch to the first answer of `/health`.
        told_s: from the power switch to the key on the console.

    """

    disk: Disk
    key: str
    console: str
    healthy_s: float
    told_s: float


def keep(folder: Path, image: Disk, made: FirstBoot) -> None:
    """Write down what came of a first start, beside its disk."""
    told = {
        "image": str(image.path),
        "key": made.key,
        "console": made.console,
        "healthy_s": made.healthy_s,
        "told_s": made.told_s,
    }
    (folder / "first.json").write_text(json.dumps(told), encoding="utf-8")


def recall(folder: Path, image: Disk) -> FirstBoot | None:
    """Return what was kept of a first start of this image; nothing if it was another one's."""
    disk, told = Disk(path=folder / "first.qcow2"), folder / "first.json"
    if not (told.is_file() and disk.path.is_file()):
        return None
    values = json.loads(told.read_text(encoding="utf-8"))
    if values.pop("image") != str(image.path):
        return None
    return FirstBoot(disk=disk, **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """
    A machine and the key to it.

    Attributes:
        vm: the machine.
        key: the API key.

    """

    vm: Vm
    key: str

    @property
    def api(self) -> Api:
        """The native API, with the owner's key."""
        return Api(self.vm.url, key=self.key)

    @contextmanager
    def caller(self) -> Iterator[Caller]:
        """Call its gateway, with the owner's key."""
        made = Caller(self.vm.url, key=self.key)
        try:
            yield made
        finally:
            made.close()

    def start(self) -> float:
        """Switch it on, wait until it is well and lets us in, and return the seconds it took to be well."""
        self.vm.switch_on()
        self.vm.wait_for_health()
        healthy_s = self.vm.seconds_on()
        self.vm.wait_for_shell()
        return healthy_s

    def models(self) -> set[str]:
        """Return the names of all models that are registered."""
        return {row["name"] for row in self.api.get("/models")["models"]}

    def wait_for_models(self, *names: str, within_s: float = 120.0) -> None:
        """Return when these models are registered."""
        wait_until(lambda: set(names) <= self.models(), f"{names} are registered", within_s)

    def place_model(self, name: str, manifest: str, *, source: str = NAME) -> None:
        """Put another model of the same weights into its place, whole or not at all, and have the disk keep it."""
        models = f"{HOME}/models"
        self.vm.shell(
            f"cp -r {models}/{source} {models}/.{name} && cat >{models}/.{name}/model.toml && touch {models}/.{name}/*"
            f" && mv {models}/.{name} {models}/{name} && sync",
            stdin=manifest,
        )

    def ask(self, argv: str) -> Any:  # noqa: ANN401 -- whatever the command line's JSON is
        """Run a verb of the command line that can speak JSON."""
        return json.loads(self.vm.shell(f"windlass {argv} --json", within_s=300))

    def image(self) -> str:
        """Return the image of the controller that runs."""
        return self.vm.shell(f"sed -n 's/^WINDLASS_IMAGE_CONTROLLER=//p' {HOME}/releases/current/release.env")

    def inspect(self) -> dict[str, Any]:
        """Look at what lies in the home, with a program of our own, in the only image that has a Python."""
        program = (Path(__file__).parent / "inside.py").read_text(encoding="utf-8")
        argv = f"docker run --rm --interactive --network none --volume {HOME}:{HOME} --entrypoint python3 {self.image()} -"
        return dict(json.loads(self.vm.shell(f"{argv} {HOME}", stdin=program, within_s=300)))
