"""
Who may ask for what.

A key is looked up by the SHA-256 of its secret, so nothing is compared byte by byte with anything a stranger chose.
Callers on loopback need none unless the configuration says so; but then they must look like local programs: a web page of
another origin does not, a page that had its own host name point here does not, and neither does a request whose headers name a
proxy. A proxy that adds none cannot be told from a local program: behind one, every caller must need a key.
"""

import enum
import functools
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Mapping
from typing import Final

from controller.config import GatewaySettings
from controller.errors import ConfigError
from controller.gateway.directory import Directory
from controller.gateway.inbound import Inbound
from controller.gateway.problems import Fault, ProblemError
from controller.wire import KeyCard

LONGEST_SECRET_BYTES: Final = 256
PROXY_HEADERS: Final = (b"x-forwarded-for", b"forwarded", b"via", b"x-real-ip", b"x-forwarded-host", b"x-forwarded-proto")
"""What a proxy adds if it is told to; one that adds none of them looks like a local program, hence `gateway.require_key`."""
_SHARED: Final = ""
"""Whose bucket the callers without a key share."""


class Need(enum.Enum):
    """What a path asks of its callers."""

    NOTHING = "nothing"
    """Open to everybody who can reach the port."""
    INFERENCE = "inference"
    """Asking models and listing them: any key."""
    ADMIN = "admin"
    """Loading, unloading, optimizing, and reading what tells about other callers: a key with scope `admin`."""


class Bucket:
    """A token bucket: a minute's worth of requests at once, refilled evenly."""

    __slots__ = ("_rate_per_s", "_size", "_tokens", "_updated_s")

    def __init__(self, *, per_min: int, now: float) -> None:
        """Start full."""
        self._size = float(per_min)
        self._rate_per_s = per_min / 60
        self._tokens = self._size
        self._updated_s = now

    def take(self, now: float) -> float:
        """Take a token and return 0, or return how many seconds it takes until there is one."""
        self._tokens = min(self._size, self._tokens + (now - self._updated_s) * self._rate_per_s)
        self._updated_s = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate_per_s
        self._tokens -= 1
        return 0.0


class Guard:
    """The door: lets a request in, with its key, or says what is missing."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Remember the rules."""
        self._settings = settings
        self._buckets: dict[tuple[str, int], Bucket] = {}
        own = socket.gethostname().lower()
        self._local_names = frozenset({"localhost", own, f"{own}.local"})

    def admit(self, inbound: Inbound, keys: Directory | None, need: Need, *, now: float) -> None:
        """
        Let a request in.

        Raises:
            ProblemError: it needs a key, another key, or has asked too often.

        """
        if need is Need.NOTHING:
            return
        inbound.key = self._identify(inbound, keys)
        if inbound.key is not None:
            _check_scopes(inbound.key, need)
        self._count(inbound.key, now=now)

    def trusts(self, inbound: Inbound, keys: Directory | None) -> bool:
        """Say whether this caller could ask models, without counting it: it may see why something is wrong."""
        try:
            self._identify(inbound, keys)
        except ProblemError:
            return False
        return True

    def _identify(self, inbound: Inbound, keys: Directory | None) -> KeyCard | None:
        """Return the caller's key; `None` for one that needs none, whatever it sends: many clients must send something."""
        secret = _secret(inbound)
        if secret is None:
            self._admit_stranger(inbound)
            return None
        digest = hashlib.sha256(secret).hexdigest()
        card = keys.key(digest) if keys is not None else None
        if card is not None and hmac.compare_digest(card.digest.lower(), digest):
            return card
        try:
            self._admit_stranger(inbound)
        except ProblemError as exc:
            if exc.kind is not Fault.NO_KEY:
                raise
            raise _wrong_key("the API key is not known here or was revoked; `windlass keys` lists what there is") from None
        return None

    def _admit_stranger(self, inbound: Inbound) -> None:
        if self._settings.require_key:
            raise _no_key("this gateway asks every caller for one (gateway.require_key)")
        if not is_loopback(inbound.peer):
            raise _no_key("callers from other machines need one")
        if any(inbound.header(name) is not None for name in PROXY_HEADERS):
            raise _no_key("this call was passed on by a proxy, and callers behind it need one")
        host = inbound.header(b"host")
        if host is not None and not self._is_local_name(host):
            raise ProblemError(
                Fault.FOREIGN_PAGE,
                f"without a key, this box must be called by a local name such as localhost, not {host[:80].decode('latin-1')!a}",
            )
        self._check_origin(inbound, host)

    def _check_origin(self, inbound: Inbound, host: bytes | None) -> None:
        origin = inbound.header(b"origin")
        if origin is None:
            return
        text = origin.decode("latin-1")
        allowed = self._settings.cors_origins
        own = host is not None and text.partition("://")[2] == host.decode("latin-1")
        if not own and text not in allowed and "*" not in allowed:
            raise ProblemError(
                Fault.FOREIGN_PAGE,
                f"pages of {text[:80]!a} may not call this gateway without a key; see gateway.cors_origins",
            )

    def _is_local_name(self, host: bytes) -> bool:
        name = host.decode("latin-1").lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") <= 1:
            name = name.partition(":")[0]
        return name in self._local_names or is_loopback(name)

    def _count(self, key: KeyCard | None, *, now: float) -> None:
        own = key.rate_limit_per_min if key is not None else None
        per_min = self._settings.rate_limit_per_min if own is None else own
        if per_min <= 0:
            return
        whose = (key.id if key is not None else _SHARED, per_min)
        bucket = self._buckets.get(whose)
        if bucket is None:
            bucket = self._buckets[whose] = Bucket(per_min=per_min, now=now)
        wait_s = bucket.take(now)
        if wait_s > 0:
            raise ProblemError(Fault.TOO_OFTEN, f"this key may ask {per_min} times a minute", retry_after_s=wait_s)


@functools.lru_cache(maxsize=1024)
def is_loopback(address: str) -> bool:
    """Say whether an address is this machine's own; a name is not."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def check_listen(host: str, keys: Mapping[str, KeyCard]) -> None:
    """
    Refuse to be reachable from other machines while nobody has a key.

    Raises:
        ConfigError: saying how to make one.

    """
    if host == "localhost" or is_loopback(host) or keys:
        return
    raise ConfigError(
        [
            f"gateway.listen: {host} can be reached from other machines, which needs an API key, and there is "
            "none; make one with `windlass keys create NAME`, or listen on 127.0.0.1"
        ]
    )


def may(key: KeyCard | None, need: Need) -> bool:
    """Say whether a caller that was let in may do this as well; one that needs no key may do everything."""
    enough = {"admin"} if need is Need.ADMIN else {"inference", "admin"}
    return key is None or not enough.isdisjoint(key.scopes)


def _check_scopes(key: KeyCard, need: Need) -> None:
    if not may(key, need):
        text = f"wanted an API key with scope {need.value}, got one with {', '.join(key.scopes) or 'none'}"
        raise ProblemError(Fault.NO_SCOPE, text)


def _secret(inbound: Inbound) -> bytes | None:
    """Return the secret a request came with; an empty one, as clients without a key like to send, counts as none."""
    bearer = inbound.header(b"authorization")
    if bearer is not None:
        kind, _, secret = bearer.partition(b" ")
        if kind.lower() == b"bearer" and secret.strip():
            return _checked(secret.strip())
    other = inbound.header(b"x-api-key")
    return _checked(other.strip()) if other is not None and other.strip() else None


def _checked(secret: bytes) -> bytes:
    if len(secret) > LONGEST_SECRET_BYTES:
        raise _wrong_key(f"an API key has at most {LONGEST_SECRET_BYTES} characters")
    return secret


def _wrong_key(text: str) -> ProblemError:
    return ProblemError(Fault.WRONG_KEY, text, headers=((b"www-authenticate", b"Bearer"),))


def _no_key(why: str) -> ProblemError:
    return ProblemError(
        Fault.NO_KEY,
        f"wanted an API key in the header `authorization: Bearer ...`, got none: {why}; `windlass keys create NAME` makes one",
        headers=((b"www-authenticate", b"Bearer"),),
    )
