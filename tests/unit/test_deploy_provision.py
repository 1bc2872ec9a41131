"""How a stock system becomes a box when the line is cut, with a connection of the test's."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import pytest

from controller.ops.deploy import engine_settings
from controller.ops.deploy.commands import Route
from controller.ops.deploy.errors import UnfitError, UnreachableBoxError
from controller.ops.deploy.link import Answer
from controller.ops.deploy.provision import provision
from controller.ops.deploy.rehearsal import Rehearsal

PROBE = "machine\tx86_64\nsystem\tDebian\nuid\t0\n"


class Stock(Rehearsal):
    """A connection to a stock system that has these files; it is cut before the command that begins with these words, once."""

    rehearses = False

    def __init__(self, *, cut: str = "", probe: str = PROBE) -> None:
        self.route = Route(name="box", control="")
        self.asked: list[str] = []
        self.files: dict[str, str] = {}
        self.reopened = 0
        self._cut = cut
        self._probe = probe

    def reopen(self, *, within_s: float) -> None:
        """Come back."""
        self.reopened += 1

    def script(self, name: str, *arguments: str, as_root: bool = True) -> Answer:
        """Say what it is."""
        return Answer(code=0, out=self._probe, err="")

    def follow(self, name: str, *arguments: str, say: Callable[[str], None]) -> int:
        """Install packages."""
        return self.run([name]).code

    def copy(self, sources: Sequence[str], folder: PurePosixPath) -> int:
        """Take files."""
        for source in sources:
            self.files[f"{folder}/{Path(source).name}"] = Path(source).read_text()
        return 0

    def run(self, argv: Sequence[str]) -> Answer:
        """Do it, as far as it is about files."""
        asked = " ".join(argv)
        if self._cut and asked.startswith(self._cut):
            self._cut = ""
            raise UnreachableBoxError("the connection to box was lost")
        self.asked.append(asked)
        match list(argv):
            case ["cat" | "test", *_, file]:
                return Answer(code=int(file not in self.files), out=self.files.get(file, ""), err="")
            case ["install", _, source, target]:
                self.files[target] = self.files[source]
            case ["mv", *_, source, target]:
                self.files[target] = self.files.pop(source)
            case ["rm", *_, folder]:
                self.files = {name: text for name, text in self.files.items() if not name.startswith(f"{folder}/")}
        return Answer(code=0, out="", err="")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return the box package."""
    (tmp_path / "box.deb").write_text("package")
    return tmp_path / "box.deb"


@pytest.mark.parametrize("cut", ["packages", "mv", "systemctl reload", "env DEBIAN_FRONTEND=noninteractive apt-get", "rm"])
def test_a_cut_provision_goes_on(package: Path, tmp_path: Path, cut: str) -> None:
    """The connection is taken up again, and an engine that was not told of its settings is told of them."""
    link = Stock(cut=cut)
    provision(link, package, folder=tmp_path / "here", break_lock=False)

    assert 1 == link.reopened
    assert link.files["/etc/docker/daemon.json"] == engine_settings.merge("", jetson=False, swarm=False).text
    assert {"/etc/docker/daemon.json", "/etc/windlass/appliance.toml"} == set(link.files)
    assert [asked for asked in link.asked if asked.startswith("systemctl reload")]


def test_what_is_done_is_not_done_again(package: Path, tmp_path: Path) -> None:
    """An engine that has its settings is told nothing."""
    link = Stock()
    provision(link, package, folder=tmp_path / "here", break_lock=False)
    link.asked.clear()
    provision(link, package, folder=tmp_path / "here", break_lock=False)

    assert [] == [asked for asked in link.asked if asked.startswith(("systemctl", "install", "mv"))]


def test_what_a_deploy_has_left_stays(package: Path, tmp_path: Path) -> None:
    """The next deploy goes on with it."""
    link = Stock()
    link.files["/var/lib/windlass/incoming/deploy/loading"] = "v1"
    provision(link, package, folder=tmp_path / "here", break_lock=False)

    assert "/var/lib/windlass/incoming/deploy/loading" in link.files


def test_what_speaks_against_it_is_said_before_anything_is_changed(package: Path, tmp_path: Path) -> None:
    """Whatever that is."""
    link = Stock()
    with pytest.raises(UnfitError, match="box: it is a toaster"):
        provision(link, package, folder=tmp_path, break_lock=False, problems=lambda host: ["it is a toaster"])

    assert [] == link.asked
