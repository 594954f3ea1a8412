"""Where a log is served: as configured, else as its operator says on chain.

The chain's words are anybody's: `pinaivu.endpoints` keeps what may be read and dialed. They are
read again after `doubt`, so a log that moves is found without a restart; who answers there is
checked by `gateway.network`.
"""

from collections.abc import Callable, Iterable

import trio

from pinaivu.encoding import to_hex
from pinaivu.endpoints import MOST, Endpoints, parse_endpoints, without_peer
from pinaivu.errors import TransportFailure
from pinaivu.p2p import PeerId


class NoPlace(TransportFailure):
    """Nobody says where the log is served; perhaps its operator will."""


class Places:
    """One log's places; what is configured takes precedence, each for itself."""

    def __init__(
        self,
        log_id: bytes,
        read: Callable[[bytes], tuple[str, ...]],
        *,
        url: str | None = None,
        coordinator: str | None = None,
        private: bool = False,
    ) -> None:
        """`read`: a log's endpoints on chain, synchronously; `coordinator` without a peer id."""
        self._log_id = log_id
        self._read = read
        self._url = url
        self._coordinator = coordinator
        self._private = private
        self._known: Endpoints | None = None

    def doubt(self) -> None:
        """Something there didn't answer: look again."""
        self._known = None

    async def urls(self) -> tuple[str, ...]:
        """Of the public server, at least one; raises `NoPlace`, or what reading the chain does."""
        if self._url is not None:
            return (self._url,)
        urls = (await self._said()).urls
        if not urls:
            raise NoPlace(
                f"the chain names no URL for log {to_hex(self._log_id)} that may be read: its"
                " operator has to set one, or the configuration the log's `url`"
            )
        return urls

    async def coordinators(self, peer: PeerId, advertised: Iterable[str]) -> tuple[str, ...]:
        """Multiaddrs of the coordinator that holds this peer key; what it says itself comes last.

        Its own words are as free as the URL that they were read from.
        """
        if self._coordinator is not None:
            return (f"{self._coordinator}/p2p/{peer}",)
        own = [bare for text in advertised if (bare := without_peer(text, peer))]
        if self._url is not None:
            return Endpoints(multiaddrs=tuple(own[:MOST])).under(peer)
        said = await self._said()
        found = (*said.under(peer), *parse_endpoints(own, private=self._private).under(peer))
        return tuple(dict.fromkeys(found))

    async def _said(self) -> Endpoints:
        if self._known is None:
            said = await trio.to_thread.run_sync(self._read, self._log_id)
            self._known = parse_endpoints(said, private=self._private)
        return self._known
