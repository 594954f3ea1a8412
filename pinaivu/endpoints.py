"""Where a party says it is served: a registry's strings, read as anybody's words.

Operators of logs and gateways publish URLs and multiaddrs on chain. Anybody may write anything
there, so a reader takes no more than `MOST` of them, only the forms this project speaks (URLs of
HTTP; TCP by IP address or host name, without a peer id), and only addresses of the public internet
unless told otherwise: else a stranger could make it knock at its own machine's or network's doors.
What is left over is passed over, never an error.

    said = parse_endpoints(client.log_endpoints(log_id))
    said.urls         ("https://log.example",)
    said.multiaddrs   ("/dns/log.example/tcp/4001",)

Nothing here proves who answers: the caller expects a key, and `Endpoints.under` names it. A host
name is not resolved here and may lead to a private address; who dials it gives away a handshake
or a GET of a fixed path, and nothing more.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

MOST: Final = 8
"""As `Endpoints.sol` allows; counted again, since an endpoint of the chain may say anything."""

_MOST_CHARACTERS: Final = 256
_MOST_PORT: Final = 65535
_MULTIADDR: Final = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/([^/\s]+)/tcp/([1-9][0-9]{0,4})\Z")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z][a-z0-9-]*\Z")
_URL: Final = re.compile(r"https?://[!-~]+\Z")
_LOCAL_NAMES: Final = ("localhost", "local", "internal", "lan", "home", "arpa")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What could be used of what a party said, in its order; multiaddrs without a peer id."""

    urls: tuple[str, ...] = ()
    multiaddrs: tuple[str, ...] = ()

    def under(self, peer_id: str) -> tuple[str, ...]:
        """The multiaddrs to dial, where only the holder of this identity can answer."""
        return tuple(f"{address}/p2p/{peer_id}" for address in self.multiaddrs)


def parse_endpoints(said: Iterable[str], *, private: bool = False) -> Endpoints:
    """Sort out the usable of the first `MOST` strings, each once.

    `private`: addresses that aren't on the public internet count too, as on a local network.
    """
    first = dict.fromkeys(text for text in islice(said, MOST) if len(text) <= _MOST_CHARACTERS)
    return Endpoints(
        urls=tuple(text for text in first if _is_url(text, private=private)),
        multiaddrs=tuple(text for text in first if _is_multiaddr(text, private=private)),
    )


def without_peer(address: str, peer_id: str) -> str | None:
    """A multiaddr that ends in ``/p2p/<peer_id>``, without that; None where it doesn't."""
    tail = f"/p2p/{peer_id}"
    return address.removesuffix(tail) if address.endswith(tail) else None


def _is_multiaddr(text: str, *, private: bool) -> bool:
    found = _MULTIADDR.match(text)
    if found is None or int(found[3]) > _MOST_PORT:
        return False
    kind, host = found[1], found[2]
    if kind.startswith("dns"):
        return _is_name(host, private=private)
    address = _ip(host)
    version = 4 if kind == "ip4" else 6
    return address is not None and address.version == version and (private or _is_public(address))


def _is_url(text: str, *, private: bool) -> bool:
    """An URL of a server's root or of a path on it, without user, query or fragment."""
    if not _URL.match(text):
        return False
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if "@" in parts.netloc or parts.query or parts.fragment or port == 0:
        return False
    address = _ip(host)
    if address is not None:
        return private or _is_public(address)
    return _is_name(host, private=private)


def _is_name(host: str, *, private: bool) -> bool:
    """A host name; its last label begins with a letter, so that ``127.1`` is none."""
    name = host.lower().removesuffix(".")
    if not _HOST.match(name):
        return False
    return private or ("." in name and name.rpartition(".")[2] not in _LOCAL_NAMES)


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return None if "%" in host else ip_address(host)  # a zone names an interface of ours
    except ValueError:
        return None


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether anybody on the internet could be meant; what wraps an IPv4 address is as good as it.

    The documentation networks count as unroutable, as they are.
    """
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not address.is_multicast
