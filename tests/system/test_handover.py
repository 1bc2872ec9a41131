"""One gateway relieves another on the same port, and one controller another: nobody who calls meanwhile notices."""

import http.client
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.stack import PROJECT, Stack, output, place_model, stack, wait_until
from tests.system.conftest import CONFIG, MINI, NAME
from tests.system.talk import PATIENCE_S, Caller, exit_code, leases, settle, started_at, throttle, whole

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SHORT = "short"
ROUNDS = 3
SLOWEST = "0.01"
"""Of one core: the stream must outlast all of it."""
LEAST_ANSWERS = 2000
"""Fewer would say that nobody called while the gateways changed."""


class Crowd:
    """Callers who ask without a pause and count what they get: each on a new connection, or all on one as long as it may last."""

    def __init__(self, url: str) -> None:
        """Call nobody yet."""
        address = urlsplit(url)
        self._address = (address.hostname or "", address.port or 0)
        self._over = threading.Event()
        self.heard: Counter[str] = Counter()

    @property
    def answers(self) -> int:
        """How many requests have been answered well."""
        return self.heard["200"]

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Call for as long as the block lasts."""
        ask = json.dumps({"model": SHORT, "prompt": "The ship", "max_tokens": 1, "temperature": 0})
        jobs = [("GET", "/v1/models", None, False), ("POST", "/v1/completions", ask, False)]
        jobs += [("GET", "/v1/models", None, True), ("POST", "/v1/completions", ask, True)]
        callers = [threading.Thread(target=self._call, args=job) for job in jobs]
        for caller in callers:
            caller.start()
        try:
            yield
        finally:
            self._over.set()
            for caller in callers:
                caller.join()

    def _call(self, method: str, path: str, body: str | None, keep: bool) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=PATIENCE_S)
        while not self._over.is_set():
            try:
                connection.request(method, path, body, {"content-type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                self.heard[f"{answer.status}" if answer.status == 200 else f"{answer.status} {text!r}"] += 1
            except (OSError, http.client.HTTPException) as exc:
                self.heard[repr(exc)] += 1
                connection.close()
            if not keep:
                connection.close()
        connection.close()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack whose gateways share their port, as those of an appliance do."""
    shared = tmp_path_factory.mktemp("handover") / "shared.yaml"
    shared.write_text(json.dumps({"services": {"gateway": {"environment": {"WINDLASS_SHARE_PORT": "true"}, "restart": "no"}}}))
    with stack("handover", budget="400MiB", config=CONFIG, beside=[shared]) as running:
        for name in (NAME, SHORT):
            place_model(MINI, running.models / name, manifest='memory = "100MiB"\nparallel = 4\n')
        running.wait_for_models(NAME, SHORT)
        yield running


class Gateways:
    """The gateways of one stack, each in a Compose project of its own, as releases have them."""

    def __init__(self, running: Stack) -> None:
        """Begin with the one that the stack came up with."""
        self._running = running
        self._projects: list[list[str]] = []
        self.current = running.container("gateway")

    def relieve(self) -> str:
        """Start another one, let the current one go, and return the one that goes."""
        project = [*self._running.compose]
        project[project.index("--project-name") + 1] += f"-{len(self._projects) + 2}"
        self._projects.append(project)
        output([*project, "up", "--detach", "--no-deps", "gateway"])
        begun = output([*project, "ps", "--quiet", "gateway"])
        wait_until(lambda: "gateway.listening" in output(["docker", "logs", begun], errors_too=True), "it listens", PATIENCE_S)
        leaving, self.current = self.current, begun
        output(["docker", "kill", "--signal", "USR1", leaving])
        return leaving

    def close(self) -> None:
        """Remove those that this has started."""
        for project in self._projects:
            subprocess.run([*project, "rm", "--stop", "--force", "gateway"], capture_output=True, check=False)


@pytest.fixture(scope="module")
def gateways(box: Stack) -> Iterator[Gateways]:
    """Return the stack's gateways, and leave none of the others."""
    made = Gateways(box)
    yield made
    made.close()


def logged(container: str, event: str) -> bool:
    """Say whether a process has written of an event."""
    return event in output(["docker", "logs", container], errors_too=True)


def test_nobody_notices_a_handover(box: Stack, gateways: Gateways) -> None:
    """Under thousands of requests gateways and controller are replaced: none fails, a long stream is whole, workers stay."""
    caller, crowd = Caller(box.url), Crowd(box.url)
    expected = caller.text(NAME, tokens=900)
    caller.text(SHORT)
    before = [started_at(box, model) for model in (NAME, SHORT)]
    throttle(box, NAME, SLOWEST)
    with caller.stream(NAME) as stream, crowd.calling():
        stream.next()
        first = gateways.relieve()
        box.kill_controller()
        wait_until(lambda: leases(box, NAME) == 1, "the lease is renewed", PATIENCE_S)
        others = [gateways.relieve() for _ in range(ROUNDS - 1)]
        wait_until(lambda: crowd.answers >= LEAST_ANSWERS, f"{LEAST_ANSWERS} answers", PATIENCE_S)
        for other in others:
            wait_until(lambda: exit_code(other) is not None, "a gateway that holds nobody ends", PATIENCE_S)  # noqa: B023 -- used here
        assert exit_code(first) is None, "the stream's own gateway has to stay until it is whole"
        throttle(box, NAME, "2")
        stream.rest()
    caller.close()
    wait_until(lambda: exit_code(first) is not None, "the first gateway ends after its stream", PATIENCE_S)
    settle(box)

    assert {"200"} == set(crowd.heard), crowd.heard
    assert whole(stream)
    assert expected == stream.text
    assert before == [started_at(box, model) for model in (NAME, SHORT)]
    assert [0, 0, 0] == [exit_code(container) for container in (first, *others)]


def test_an_idle_connection_gets_one_more_answer(box: Stack, gateways: Gateways) -> None:
    """On a connection to a gateway that leaves one more request is answered, the last as it says, and the next goes elsewhere."""
    address = urlsplit(box.url)
    kept = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE_S)
    kept.request("GET", "/v1/models")
    kept.getresponse().read()
    own = kept.sock
    leaving = gateways.relieve()
    wait_until(lambda: logged(leaving, "gateway.draining"), "it lets its callers go", PATIENCE_S)
    kept.request("GET", "/v1/models")
    last = kept.getresponse()
    same = kept.sock in (own, None)
    last.read()
    kept.request("GET", "/v1/models")
    after = kept.getresponse()

    assert same
    assert (200, "close") == (last.status, last.getheader("connection"))
    assert (200, None) == (after.status, after.getheader("connection"))
    kept.close()
    wait_until(lambda: exit_code(leaving) == 0, "it has ended", PATIENCE_S)


def test_a_port_is_shared_only_by_those_who_say_so(box: Stack, tmp_path: Path) -> None:
    """A gateway that was not told to share its port refuses one that somebody listens on, and says so."""
    argv = ["docker", "run", "--rm", "--network", "host", "--env", f"WINDLASS_LISTEN={urlsplit(box.url).netloc}"]
    image = output(["docker", "inspect", "--format", "{{.Config.Image}}", box.container("controller")])
    ended = subprocess.run([*argv, image, "gateway"], capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 2
    assert "cannot listen on port" in ended.stderr
    assert (PROJECT / "compose" / "box.yaml").read_text(encoding="utf-8").count('WINDLASS_SHARE_PORT: "true"') == 1
