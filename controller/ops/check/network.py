"""The address of the gateway, and who may use it."""

import ipaddress
import re
from collections.abc import Iterable

from controller.ops.check.values import Facts, Finding, Port, error, warning


def listening(facts: Facts) -> Iterable[Finding]:
    """Judge the address, its port and the keys it asks for."""
    listen = facts.settings.gateway.listen
    address = split_listen(listen)
    if address is None:
        yield error("listen", f"wanted an address such as 127.0.0.1:8000 or [::]:8000, got {listen!r}", "correct gateway.listen")
        return
    match facts.port:
        case Port.TAKEN:
            yield error(
                "port",
                f"somebody else listens on {listen}",
                f"ss -ltnp 'sport = :{address[1]}'   shows who; or set gateway.listen",
            )
        case Port.NO_ADDRESS:
            yield error("listen", f"this host does not have the address {address[0]}", "ip -brief address   lists those it has")
        case Port.FORBIDDEN:
            yield error(
                "port",
                f"a port below 1024 is for root, and the gateway is not root: {listen}",
                "set gateway.listen to a port from 1024 on",
            )
        case Port.FREE | Port.OURS:
            pass
    if is_loopback(address[0]):
        return
    if facts.key_count == 0:
        yield error(
            "keys",
            f"the gateway refuses to listen on {listen} without an API key: everyone on the network could use it",
            "windlass keys create NAME\nor set gateway.listen to 127.0.0.1:8000",
        )
    elif facts.key_count is None:
        yield warning(
            "keys",
            f"the gateway is to listen on {listen}, which needs an API key, and nobody could tell whether there is one",
            "make run, and then: sudo windlass keys list",
        )


def split_listen(listen: str) -> tuple[str, int] | None:
    """Take `address:port` apart; `None` if it is not one. An IPv6 address stands in brackets."""
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]\s]*)):(?P<port>\d{1,5})", listen)
    if match is None or not 0 < int(match["port"]) < 2**16:
        return None
    return match["v6"] or match["host"] or "0.0.0.0", int(match["port"])  # noqa: S104 - an empty host means every address


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this box can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
