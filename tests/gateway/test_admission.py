"""Who is let in: keys, scopes, loopback, web pages, rates; and what the listener itself refuses."""

import asyncio
import hashlib
import json
from pathlib import Path

import httpx
import pytest

from controller import wire
from controller.config import GatewaySettings, Settings
from controller.errors import ConfigError
from controller.gateway import app as gateway_app
from tests.gateway.conftest import World, direct, running
from tests.gateway.fakes import CHAT, FakeController, connection, request
from tests.waiting import until

OTHER_MACHINE = "192.0.2.7"


def key(name: str, *scopes: str, rate: int | None = None) -> wire.KeyCard:
    """Return a key whose secret is its name."""
    return wire.KeyCard(id=name, digest=hashlib.sha256(name.encode()).hexdigest(), scopes=scopes, rate_limit_per_min=rate)


async def hand_out(world: World, *keys: wire.KeyCard) -> None:
    """Let the gateway know these keys."""
    world.controller.keys = keys
    world.controller.announce()
    await until("the keys to come", lambda: len(world.session.known().keys) == len(keys))


def bearer(secret: str) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"authorization": f"Bearer {secret}"}


async def test_callers_from_other_machines_need_a_key(tmp_path: Path) -> None:
    """None is a 401, a wrong one too, a right one is let in by either header."""
    async with direct(tmp_path, peer=OTHER_MACHINE) as world:
        await hand_out(world, key("user", "inference"))
        none = await world.http.get("/v1/models")
        wrong = await world.http.get("/v1/models", headers=bearer("nobody"))
        right = await world.http.get("/v1/models", headers=bearer("user"))
        other = await world.http.get("/v1/models", headers={"x-api-key": "user"})
        long = await world.http.get("/v1/models", headers=bearer("x" * 5000))

    assert (none.status_code, none.json()["error"]["code"], none.headers["www-authenticate"]) == (
        401,
        "missing_api_key",
        "Bearer",
    )
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
    assert (right.status_code, other.status_code, long.status_code) == (200, 200, 401)


async def test_a_revoked_key_is_refused_at_once(tmp_path: Path) -> None:
    """The catalog without it is enough."""
    async with direct(tmp_path, peer=OTHER_MACHINE) as world:
        await hand_out(world, key("user", "inference"))
        before = await world.http.get("/v1/models", headers=bearer("user"))
        await hand_out(world)
        after = await world.http.get("/v1/models", headers=bearer("user"))

    assert (before.status_code, after.status_code) == (200, 401)


@pytest.mark.parametrize("path", ["/status", "/performance", "/plan/mini", "/models/mini/logs"])
async def test_reading_about_others_needs_the_admin_scope(tmp_path: Path, path: str) -> None:
    """A key for inference is a 403 there, one with `admin` is let in."""
    async with direct(tmp_path, peer=OTHER_MACHINE) as world:
        world.controller.answers |= {"performance": {}, "plan": {}, "logs": {}}
        await hand_out(world, key("user", "inference"), key("boss", "admin"))
        user = await world.http.get(path, headers=bearer("user"))
        boss = await world.http.get(path, headers=bearer("boss"))

    assert (user.status_code, user.json()["error"]["code"]) == (403, "insufficient_scope")
    assert boss.status_code == 200


async def test_the_metrics_of_the_box_need_the_admin_scope(tmp_path: Path) -> None:
    """A key for inference reads what is counted here, and nothing of what `/status` keeps for admins."""
    async with direct(tmp_path, peer=OTHER_MACHINE) as world:
        world.controller.answers["status"] = {"memory": {"budget_bytes": 5}, "queue": [{"waiting_s": 1.5}]}
        await hand_out(world, key("user", "inference"), key("boss", "admin"))
        user = await world.http.get("/metrics", headers=bearer("user"))
        boss = await world.http.get("/metrics", headers=bearer("boss"))

    assert "windlass_gateway_controller_up 1.0" in user.text
    assert "windlass_memory_bytes" not in user.text
    assert "windlass_queue_length" not in user.text
    assert 'windlass_memory_bytes{kind="budget"} 5.0' in boss.text


@pytest.mark.parametrize("path", ["/load_model", "/unload_model", "/optimize"])
async def test_doing_needs_the_admin_scope(tmp_path: Path, path: str) -> None:
    """A key for inference may not load, unload or optimize."""
    async with direct(tmp_path, peer=OTHER_MACHINE) as world:
        await hand_out(world, key("user", "inference"))
        answer = await world.ask(path, {"model_name": "mini"}, headers=bearer("user"))

    assert answer.status_code == 403
    assert world.controller.calls == []


async def test_an_admin_key_may_ask_models_and_one_without_scopes_nothing(tmp_path: Path) -> None:
    """`admin` includes `inference`."""
    async with direct(tmp_path, peer=OTHER_MACHINE) as world:
        await hand_out(world, key("boss", "admin"), key("nothing"))
        boss = await world.chat(user="x")
        boss = await world.ask(CHAT, {"model": "mini", "messages": [{"role": "user", "content": "x"}]}, headers=bearer("boss"))
        nothing = await world.http.get("/v1/models", headers=bearer("nothing"))

    assert (boss.status_code, nothing.status_code) == (200, 403)


async def test_health_is_open_and_tells_strangers_no_reasons(tmp_path: Path) -> None:
    """A load balancer may ask, and learns the state only."""
    async with direct(tmp_path, peer=OTHER_MACHINE) as world:
        world.controller.answers["health"] = {"state": "degraded", "reasons": ["the folder x is not served"]}
        answer = await world.http.get("/health")

    assert answer.json() == {"status": "degraded", "reasons": []}


async def test_callers_on_loopback_need_no_key(near: World) -> None:
    """Not even a right one, since many clients must send something."""
    assert (await near.http.get("/v1/models")).status_code == 200
    assert (await near.http.get("/v1/models", headers=bearer("anything"))).status_code == 200


async def test_callers_on_loopback_need_a_key_if_the_configuration_says_so(tmp_path: Path) -> None:
    """`gateway.require_key` asks everybody."""
    async with direct(tmp_path, require_key=True) as world:
        assert (await world.http.get("/v1/models")).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8000"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "LOCALHOST"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8000"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, 200),
        ({"host": "localhost:8000", "origin": "https://evil.example"}, 403),
        ({"host": "localhost:8000", "origin": "null"}, 403),
        ({"host": "localhost:8000", "origin": "https://friend.example"}, 200),
        ({"x-forwarded-for": "192.0.2.9"}, 401),
        ({"forwarded": "for=192.0.2.9"}, 401),
        ({"via": "1.1 proxy.example"}, 401),
        ({"x-real-ip": "192.0.2.9"}, 401),
        ({"x-forwarded-host": "box.example"}, 401),
        ({"x-forwarded-proto": "https"}, 401),
    ],
)
async def test_a_web_page_cannot_borrow_its_visitors_loopback(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    """Names that were made to point here, pages of other origins and proxies are not local programs."""
    async with direct(tmp_path, cors_origins=("https://friend.example",)) as world:
        answer = await world.http.get("/v1/models", headers=headers)

    assert answer.status_code == status


async def test_cors_is_answered_for_the_origins_that_are_configured(tmp_path: Path) -> None:
    """A preflight is granted to a friend and to nobody else, and the route's headers are readable."""
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    async with direct(tmp_path, cors_origins=("https://friend.example",)) as world:
        friend = await world.http.options(CHAT, headers={**preflight, "origin": "https://friend.example"})
        other = await world.http.options(CHAT, headers={**preflight, "origin": "https://evil.example"})
        asked = await world.http.get("/v1/models", headers={"origin": "https://friend.example"})

    assert (friend.status_code, friend.headers["access-control-allow-origin"]) == (200, "https://friend.example")
    assert "access-control-allow-origin" not in other.headers
    assert "x-windlass-route" in asked.headers["access-control-expose-headers"]


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    """The key's own limit goes before the general one, and each key has its own bucket."""
    async with direct(tmp_path, peer=OTHER_MACHINE, rate_limit_per_min=1000) as world:
        await hand_out(world, key("slow", "inference", rate=2), key("quick", "inference"))
        statuses = [(await world.http.get("/v1/models", headers=bearer("slow"))).status_code for _ in range(3)]
        refused = await world.http.get("/v1/models", headers=bearer("slow"))
        quick = await world.http.get("/v1/models", headers=bearer("quick"))

    assert statuses == [200, 200, 429]
    assert (refused.json()["error"]["code"], int(refused.headers["retry-after"])) == ("rate_limit_exceeded", 30)
    assert quick.status_code == 200


async def test_it_does_not_listen_beyond_loopback_without_a_key(tmp_path: Path) -> None:
    """The refusal says how to make one."""
    controller = FakeController(tmp_path / "controller.sock")
    await controller.start()
    try:
        with pytest.raises(ExceptionGroup) as refused:
            await gateway_app.serve(Settings(run=tmp_path, gateway=GatewaySettings(listen="0.0.0.0:0")))
    finally:
        await controller.stop()

    assert refused.group_contains(ConfigError, match="windlass keys create")


@pytest.mark.parametrize("text", ["", "8000", ":8000", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    """Both parts are wanted."""
    with pytest.raises(ConfigError, match=r"gateway\.listen"):
        gateway_app.split_listen(text)


def test_addresses_are_split() -> None:
    """Brackets of IPv6 are no part of the address."""
    assert gateway_app.split_listen("127.0.0.1:8000") == ("127.0.0.1", 8000)
    assert gateway_app.split_listen("[::1]:80") == ("::1", 80)


async def answer_to(world: World, data: bytes) -> tuple[int, dict[str, object]]:
    """Send raw bytes and return status and error."""
    async with connection(world.port) as (reader, writer):
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return int(head.split(b" ")[1]), json.loads(await reader.readexactly(size))["error"]


@pytest.mark.parametrize("size", [40_000, 400_000])
async def test_a_head_that_is_too_large_is_refused(world: World, size: int) -> None:
    """One long header or many: a 431 in the envelope, whether it comes at once or in pieces."""
    one = request(CHAT, {}, headers=f"x-long: {'a' * size}\r\n")
    many = request(CHAT, {}, headers="".join(f"x-{number}: {'a' * 100}\r\n" for number in range(size // 100)))

    for data in (one, many):
        status, error = await answer_to(world, data)
        assert (status, error["code"]) == (431, "header_too_large")


async def test_a_large_body_is_no_large_head(world: World) -> None:
    """What follows the head does not count, on the first request of a connection and on later ones."""
    body = {"model": "mini", "messages": [{"role": "user", "content": "hi"}], "padding": "x" * 300_000}
    for _ in range(3):
        answer = await world.ask(CHAT, body)
        assert answer.status_code == 200


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nhost: \x00\r\n\r\n", b"GET http://[ HTTP/1.1\r\n\r\n"])
async def test_what_is_no_http_is_refused_in_the_envelope(world: World, data: bytes) -> None:
    """Even then an answer is JSON."""
    status, error = await answer_to(world, data)

    assert (status, error["code"]) == (400, "bad_request")


async def test_a_body_that_is_too_large_is_refused_and_the_caller_hears_it(world: World) -> None:
    """A client that sends ten megabytes and only then listens still gets its 413."""
    body = b'{"model": "mini", "padding": "' + b"x" * 10_000_000 + b'"}'
    declared = await world.http.post(CHAT, content=body)

    async def pieces() -> object:
        for start in range(0, len(body), 500_000):
            yield body[start : start + 500_000]

    chunked = await world.http.post(CHAT, content=pieces())

    for answer in (declared, chunked):
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert world.controller.acquired == []


async def test_a_request_id_is_kept_if_it_is_harmless(near: World) -> None:
    """The caller's own id comes back; one that could not be logged is replaced."""
    kept = await near.http.get("/v1/models", headers={"x-request-id": "mine-42"})
    replaced = await near.http.get("/v1/models", headers={"x-request-id": "a b\x7f"})

    assert kept.headers["x-request-id"] == "mine-42"
    assert replaced.headers["x-request-id"] != "a b\x7f"


async def test_many_callers_at_once_are_all_answered(tmp_path: Path) -> None:
    """Two hundred at the same time, whole and streamed, get their own answers, and nothing is left held."""
    limits = httpx.Limits(max_connections=200)
    async with running(tmp_path) as world, httpx.AsyncClient(base_url=world.http.base_url, limits=limits, timeout=30) as client:

        async def caller(number: int) -> str:
            body = {"model": "mini", "messages": [{"role": "user", "content": f"n{number}"}], "stream": number % 2 == 1}
            answer = await client.post(CHAT, json=body)
            return answer.text

        texts = await asyncio.gather(*(caller(number) for number in range(200)))
        await world.idle()

    assert all(f"said n{number}" in text for number, text in enumerate(texts) if number % 2 == 0)
    assert all("[DONE]" in text for number, text in enumerate(texts) if number % 2 == 1)
