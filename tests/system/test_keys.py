"""API keys: made on the box, asked for by gateways that are told to, and no listening beyond loopback without one."""

import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from bench.stack import PROJECT, Stack, free_port, output, wait_until
from tests.system.conftest import NAME
from tests.system.talk import AS_ROOT, PATIENCE_S, Caller, exit_code, leases, slowly

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

Gateway = Callable[..., str]
MakeKey = Callable[..., str]


def keys(world: Stack, *argv: str) -> Any:  # noqa: ANN401 -- JSON
    """Run `windlass keys` on the box, as its owner would: the controller's socket is closed to others."""
    which = [f"WINDLASS_HOME={world.place.home}", f"WINDLASS_RUN={world.place.run}"]
    command = [*AS_ROOT, "env", *which, sys.executable, "-m", "controller", "keys", *argv, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def make_key(world: Stack) -> Iterator[MakeKey]:
    """Return a function that makes a key with these scopes and returns its secret; all are revoked in the end."""
    made: list[str] = []

    def make(*argv: str) -> str:
        key = keys(world, "create", "a-test", *argv)
        made.append(key["id"])
        return str(key["secret"])

    yield make
    for key_id in made:
        keys(world, "revoke", key_id)


@pytest.fixture
def second_gateway(world: Stack, tmp_path: Path) -> Iterator[Gateway]:
    """
    Return a function that runs one more gateway of the same stack, sealed as Compose seals it, and returns its container.

    It takes the address to listen on and the text of its configuration.
    """
    name = f"{world.place.owner}-gateway-{secrets.token_hex(3)}"

    def run(listen: str, config: str = "") -> str:
        (tmp_path / "appliance.toml").write_text(config, encoding="utf-8")
        tmp_path.chmod(0o755)
        run_folder = str(world.place.run)
        output([
            "docker", "run", "--detach", "--name", name,
            "--network", "host", "--read-only", "--user", "64002:64000", "--cap-drop", "ALL",
            "--env", f"WINDLASS_LISTEN={listen}", "--env", f"WINDLASS_RUN={run_folder}",
            "--volume", f"{run_folder}:{run_folder}:ro", "--volume", f"{tmp_path}:/etc/windlass:ro",
            output(["docker", "inspect", "--format", "{{.Config.Image}}", world.container("gateway")]), "gateway",
        ])  # fmt: skip
        return name

    yield run
    subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


def answering(url: str) -> bool:
    """Say whether a gateway answers at all."""
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def strict(second_gateway: Gateway) -> str:
    """Run a gateway that asks every caller for a key, and return its URL."""
    listen = f"127.0.0.1:{free_port()}"
    second_gateway(listen, "[gateway]\nrequire_key = true\n")
    wait_until(lambda: answering(f"http://{listen}"), "the second gateway answers", PATIENCE_S)
    return f"http://{listen}"


@pytest.fixture
def calls() -> Iterator[Callable[..., httpx.Response]]:
    """Return a function that makes one call with a key."""
    with httpx.Client(timeout=PATIENCE_S) as client:

        def call(url: str, path: str, secret: str | None = None, body: object = None) -> httpx.Response:
            headers = {"authorization": f"Bearer {secret}"} if secret else {}
            return client.request("GET" if body is None else "POST", url + path, json=body, headers=headers)

        yield call


Calls = Callable[..., httpx.Response]
ASK = {"model": NAME, "prompt": "Hello", "max_tokens": 2}


def test_without_a_key_nothing_is_told(strict: str, calls: Calls) -> None:
    """A gateway that asks for keys answers 401 in OpenAI's form, and says whether it is well to anybody."""
    without, wrong = calls(strict, "/v1/models"), calls(strict, "/v1/models", "wl_nobody-made-this")
    health = calls(strict, "/health")

    assert (401, "missing_api_key") == (without.status_code, without.json()["error"]["code"])
    assert (401, "invalid_api_key") == (wrong.status_code, wrong.json()["error"]["code"])
    assert "bearer" in without.headers["www-authenticate"].lower()
    assert (200, {"status": "ok", "reasons": []}) == (health.status_code, health.json())


def test_a_key_opens_what_its_scopes_say(strict: str, calls: Calls, make_key: MakeKey) -> None:
    """A key for inference asks models and no more; one for admin does what operators do."""
    asking, ruling = make_key(), make_key("--scope", "admin", "--scope", "inference")
    wait_until(lambda: calls(strict, "/v1/models", ruling).status_code == 200, "the keys are known", PATIENCE_S)
    with_asking = [
        calls(strict, "/v1/completions", asking, ASK),
        calls(strict, "/models", asking),
        calls(strict, "/load_model", asking, {"model": NAME}),
        calls(strict, "/status", asking),
    ]
    with_ruling = [
        calls(strict, "/v1/completions", ruling, ASK),
        calls(strict, "/load_model", ruling, {"model": NAME}),
        calls(strict, "/status", ruling),
    ]

    assert [200, 200, 403, 403] == [answer.status_code for answer in with_asking]
    assert "insufficient_scope" == with_asking[2].json()["error"]["code"]
    assert [200, 200, 200] == [answer.status_code for answer in with_ruling]


def test_a_revoked_key_opens_nothing(world: Stack, strict: str, calls: Calls) -> None:
    """Revoked on the box, it is refused by a gateway that runs, without a restart of anything."""
    key = keys(world, "create", "soon-revoked")
    wait_until(lambda: calls(strict, "/v1/models", key["secret"]).status_code == 200, "the key is known", PATIENCE_S)
    keys(world, "revoke", key["id"])
    wait_until(lambda: calls(strict, "/v1/models", key["secret"]).status_code == 401, "the key is refused", PATIENCE_S)

    assert "invalid_api_key" == calls(strict, "/v1/models", key["secret"]).json()["error"]["code"]
    listed = next(one for one in keys(world, "list")["keys"] if one["id"] == key["id"])
    assert listed["revoked_at"]


def test_a_keys_rate_limit_holds(strict: str, calls: Calls, make_key: MakeKey) -> None:
    """The request beyond the limit is a 429 that says when to come back."""
    key = make_key("--rate-limit", "2")
    wait_until(lambda: calls(strict, "/v1/models", key).status_code != 401, "the key is known", PATIENCE_S)
    answers = [calls(strict, "/v1/models", key) for _ in range(3)]

    assert (429, "rate_limit_exceeded") == (answers[-1].status_code, answers[-1].json()["error"]["code"])
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_no_secret_is_kept(world: Stack, make_key: MakeKey) -> None:
    """Neither the list nor the database nor any log has the secret of a key."""
    secret = make_key()
    listed = json.dumps(keys(world, "list"))
    kept = subprocess.run(
        ["docker", "exec", world.container("controller"), "sh", "-c", f"cat {world.place.home}/state.db*"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    logged = world.logs("controller") + world.logs("gateway")

    assert secret not in listed
    assert len(kept) > 0
    assert secret.encode() not in kept
    assert secret not in logged


def test_beyond_loopback_it_will_not_listen_without_a_key(second_gateway: Gateway) -> None:
    """As long as nobody has a key, a gateway told to listen to other machines ends, with a sentence that says what to do."""
    name = second_gateway(f"0.0.0.0:{free_port()}")
    wait_until(lambda: exit_code(name) is not None, "it has ended", PATIENCE_S)
    said = output(["docker", "logs", name], errors_too=True)

    assert exit_code(name) == 2
    assert "0.0.0.0 can be reached from other machines" in said
    assert "windlass keys create" in said


def test_beyond_loopback_callers_need_a_key(second_gateway: Gateway, calls: Calls, make_key: MakeKey) -> None:
    """With a key made it listens, loopback goes on as before, and who comes by another address must show the key."""
    key, port = make_key(), free_port()
    second_gateway(f"0.0.0.0:{port}")
    wait_until(lambda: answering(f"http://127.0.0.1:{port}"), "the second gateway answers", PATIENCE_S)
    outside = f"http://{_own_address()}:{port}"
    statuses = [
        calls(f"http://127.0.0.1:{port}", "/v1/models").status_code,
        calls(outside, "/v1/models").status_code,
        calls(outside, "/v1/models", key).status_code,
        calls(outside, "/v1/completions", key, ASK).status_code,
    ]

    assert [200, 401, 200, 200] == statuses


def test_pages_of_the_origins_allowed_may_call(second_gateway: Gateway) -> None:
    """A browser is told which pages may call; a page of any other origin may not, even where no key is asked for."""
    listen = f"127.0.0.1:{free_port()}"
    second_gateway(listen, '[gateway]\ncors_origins = ["https://page.example"]\n')
    wait_until(lambda: answering(f"http://{listen}"), "the second gateway answers", PATIENCE_S)
    asking = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    url = f"http://{listen}/v1/completions"
    with httpx.Client(timeout=PATIENCE_S) as client:
        preflight = client.options(url, headers={"origin": "https://page.example", **asking})
        allowed = client.post(url, json=ASK, headers={"origin": "https://page.example"})
        foreign = client.post(url, json=ASK, headers={"origin": "https://other.example"})

    assert (200, "https://page.example") == (preflight.status_code, preflight.headers["access-control-allow-origin"])
    assert (200, "https://page.example") == (allowed.status_code, allowed.headers["access-control-allow-origin"])
    assert (403, "foreign_origin") == (foreign.status_code, foreign.json()["error"]["code"])


def test_two_gateways_share_one_controller(world: Stack, strict: str, calls: Calls, make_key: MakeKey) -> None:
    """A caller of the one waits for the same worker as a caller of the other, and both are answered."""
    key = make_key()
    wait_until(lambda: calls(strict, "/v1/models", key).status_code == 200, "the key is known", PATIENCE_S)
    first = Caller(world.url)
    try:
        with slowly(world, NAME), first.stream(NAME, tokens=100) as stream:
            stream.next()
            held = leases(world, NAME)
            stream.rest()
        second = calls(strict, "/v1/completions", key, ASK)
    finally:
        first.close()

    assert held == 1
    assert 200 == second.status_code


def _own_address() -> str:
    """Return an address of this machine that is not loopback; the container engine's bridge has one on every host."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                return str(address.address)
    pytest.fail("this machine has no address but loopback")
