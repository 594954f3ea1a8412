"""A host of py-libp2p: built, run, dialing, serving; what this project knows of its inside.

Written for version 0.8.1, which pyproject pins. Promises noise-only TCP with yamux under one
secp256k1 identity, and connections that can be dialed again at once; what they and their streams
do is in `pinaivu.p2p.connections`. Foreign exceptions end here. What has to be known of the
library's inside is said where it is used.

The library takes seconds to import, so it is imported when the first host is built. Nothing
outside `pinaivu.p2p` should import this module.
"""

import gc
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

import trio

from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.keys import SecretKey, point_of_peer_id
from pinaivu.p2p import PeerId
from pinaivu.p2p.connections import Connection, StreamPipe, quietly
from pinaivu.p2p.errors import ConnectFailed, WrongPeer

if TYPE_CHECKING:
    from libp2p.abc import IHost

MAX_PEERS: Final = 4000
_MAX_STREAMS: Final = 40_000
_PENDING_HANDSHAKES: Final = 512

NewPipe = Callable[[PeerId, StreamPipe], Awaitable[None]]


class Library:
    """One libp2p host. `run` it, then dial, listen and serve."""

    def __init__(self, secret: bytes, handshake_timeout: float, *, patched: bool = True) -> None:
        """Build a host around 32 secret bytes; takes seconds where libp2p isn't imported yet.

        `patched` puts `pinaivu.p2p.patches` in force, for all hosts of the process. Raises
        `InvalidEncoding` where they are no secp256k1 secret.
        """
        SecretKey(secret)  # raises before the slow import
        _import_library()
        if patched:
            _patch()
        self._host = _build(secret, handshake_timeout)
        self._handshake_timeout = handshake_timeout
        self._network: Any = self._host.get_network()
        self._network.retry_config.max_retries = 0  # who keeps a connection up decides that
        # Identify would cost two streams for each connection; nobody here reads what it says.
        for notifee in list(self._network.notifees):
            self._network.remove_notifee(notifee)
        self.peer_id = PeerId(str(self._host.get_id()))
        self._table = _Table()

    def on_connected(self, callback: Callable[[Connection], None]) -> None:
        """Call back for each new connection, with an authenticated secp256k1 peer or not at all."""
        self._table.callback = callback
        self._network.register_notifee(self._table)

    def run(self, listen: Sequence[str]) -> AbstractAsyncContextManager[None]:
        """Run the host; `start` completes it inside."""
        from multiaddr import Multiaddr  # noqa: PLC0415

        for address in listen:
            _require_free(address)
        running: AbstractAsyncContextManager[None] = self._host.run(
            listen_addrs=[Multiaddr(address) for address in listen]
        )
        return running

    async def start(self, listen: Sequence[str]) -> None:
        """Check that all addresses are listened on (the library doesn't say) and stop auto-dialing.

        The auto-connector dials every known peer below a watermark, also those just dropped.
        """
        await self._network.auto_connector.stop()
        if missing := set(listen) - set(self._network.listeners):
            raise Misconfigured(f"cannot listen on {', '.join(sorted(missing))}: not bound")

    async def stop(self) -> None:
        """Stop listening and forget everything; connections are to be aborted before."""
        await quietly(self._host.close)

    def addresses(self) -> list[str]:
        """What is listened on, with real ports and the peer id."""
        return [f"{address}/p2p/{self.peer_id}" for address in self._host.get_transport_addrs()]

    def serve(self, protocol: str, on_pipe: NewPipe) -> None:
        """Give every stream a peer opens for `protocol` to `on_pipe`, for as long as it runs."""

        async def on_stream(stream: Any) -> None:
            try:
                connection = self._table.admit(stream.swarm_conn)
            except WrongPeer:
                await stream.reset()
            else:
                await on_pipe(connection.peer, StreamPipe(connection, stream))

        self._host.set_stream_handler(protocol, on_stream)

    async def dial(self, address: str) -> None:
        """Connect to a multiaddr that ends in ``/p2p/<peer id>``; `on_connected` gets the result.

        Raises `ConnectFailed`, or `WrongPeer` when another key answers.
        """
        info = _parse(address)
        store = self._network.peerstore
        # After one failure the library refuses to dial the peer for a minute, and it prefers
        # public addresses to the one asked for: so forget both, before and after.
        self._network.unblock_peer(info.peer_id)
        store.clear_addrs(info.peer_id)
        store.add_addrs(info.peer_id, info.addrs, 120)
        try:
            with trio.fail_after(self._handshake_timeout):  # the library's own starts too late
                await self._network.dial_peer(info.peer_id)
        except trio.TooSlowError as error:
            raise ConnectFailed(f"no handshake with {address} in time") from error
        except Exception as error:
            if _is_mismatch(error):
                raise WrongPeer(f"at {address} another key answers") from error
            raise ConnectFailed(f"no connection to {address}: {error}") from error
        finally:
            store.clear_addrs(info.peer_id)


class _Table:
    """The connections, as the library announces them; refuses peers without a secp256k1 key."""

    def __init__(self) -> None:
        self._by_conn: dict[object, Connection] = {}
        self.callback: Callable[[Connection], None] = _ignore

    def admit(self, conn: Any) -> Connection:
        """The entry of `conn`, made where the announcement is still to come."""
        if conn.is_closed:
            raise WrongPeer("the connection is closed already")
        if conn not in self._by_conn:
            peer = PeerId(str(conn.muxed_conn.peer_id))
            try:
                point_of_peer_id(peer)
            except InvalidEncoding as error:
                raise WrongPeer(f"the identity of {peer} is not a secp256k1 key") from error
            self._by_conn[conn] = Connection(peer, conn)
        return self._by_conn[conn]

    async def connected(self, _network: object, conn: Any) -> None:
        try:
            connection = self.admit(conn)
        except WrongPeer:
            await quietly(conn.close)
        else:
            self.callback(connection)

    async def disconnected(self, _network: object, conn: object) -> None:
        self._by_conn.pop(conn, None)

    async def opened_stream(self, _network: object, _stream: object) -> None: ...
    async def closed_stream(self, _network: object, _stream: object) -> None: ...
    async def listen(self, _network: object, _address: object) -> None: ...
    async def listen_close(self, _network: object, _address: object) -> None: ...


def _build(secret: bytes, handshake_timeout: float) -> "IHost":
    """A host that offers noise alone.

    The library's default also offers plaintext, over which any peer can be impersonated, and
    admits 256 connections. Its circuit breaker refuses everybody for a minute after five
    failures, which any stranger could cause.
    """
    from libp2p import new_host  # noqa: PLC0415
    from libp2p.crypto.secp256k1 import create_new_key_pair  # noqa: PLC0415
    from libp2p.crypto.x25519 import create_new_key_pair as new_noise_key  # noqa: PLC0415
    from libp2p.network.config import ConnectionConfig  # noqa: PLC0415
    from libp2p.security.noise.transport import PROTOCOL_ID, Transport  # noqa: PLC0415
    from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX  # noqa: PLC0415
    from libp2p.stream_muxer.yamux.yamux import Yamux  # noqa: PLC0415

    class QuietYamux(Yamux):  # type: ignore[misc]
        """Leaves pings to `Connection`: the event of an answer has room for one of us."""

        async def _measure_rtt_loop(self) -> None:
            return

    _quiet_loggers()
    pair = create_new_key_pair(secret)
    return new_host(
        key_pair=pair,
        sec_opt={PROTOCOL_ID: Transport(pair, noise_privkey=new_noise_key().private_key)},
        muxer_opt={YAMUX: QuietYamux},
        resource_manager=_limits(),
        connection_config=ConnectionConfig(
            max_connections=MAX_PEERS,
            high_watermark=MAX_PEERS,
            low_watermark=0,
            min_connections=0,
            dial_timeout=handshake_timeout,
            inbound_upgrade_timeout=handshake_timeout,
            outbound_upgrade_timeout=handshake_timeout,
        ),
        disable_identify_address_discovery=True,
    )


def _import_library() -> None:
    """Import the library, once, and tell the garbage collector to leave what came with it.

    It is some 200,000 objects that live as long as the process; a full collection that walks them
    stops everything for a tenth of a second.
    """
    if "libp2p" not in sys.modules:
        import libp2p  # noqa: F401, PLC0415

        gc.collect()
        gc.freeze()


def _patch() -> None:
    """Make the library faster; one that isn't the expected one works as it is."""
    from pinaivu.p2p.patches import PatchRefused, patch_libp2p  # noqa: PLC0415

    try:
        patch_libp2p()
    except PatchRefused as error:
        logging.getLogger(__name__).warning("libp2p stays as it is, and slower: %s", error)


def _quiet_loggers() -> None:
    """Silence the library: it shouts ERROR for every lost peer, and some modules set own levels."""
    for name in ("libp2p", *logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        if name.partition(".")[0] == "libp2p" and logger.level != logging.CRITICAL:
            logger.setLevel(logging.CRITICAL)  # empties the caches of all loggers there are


def _limits() -> Any:
    from libp2p.rcmgr.connection_limits import ConnectionLimits  # noqa: PLC0415
    from libp2p.rcmgr.manager import ResourceLimits, new_resource_manager  # noqa: PLC0415

    return new_resource_manager(
        limits=ResourceLimits(
            max_connections=MAX_PEERS, max_streams=_MAX_STREAMS, max_memory_mb=4096
        ),
        connection_limits=ConnectionLimits(
            max_established_inbound=MAX_PEERS,
            max_established_outbound=MAX_PEERS,
            max_established_total=MAX_PEERS,
            max_established_per_peer=8,
            max_pending_inbound=_PENDING_HANDSHAKES,
            max_pending_outbound=_PENDING_HANDSHAKES,
        ),
        enable_circuit_breaker=False,
        enable_graceful_degradation=False,
    )


def _parse(address: str) -> Any:
    from libp2p.peer.peerinfo import info_from_p2p_addr  # noqa: PLC0415
    from multiaddr import Multiaddr  # noqa: PLC0415

    try:
        point_of_peer_id(address.rpartition("/p2p/")[2])
        return info_from_p2p_addr(Multiaddr(address))
    except Exception as error:
        wanted = "/ip4/203.0.113.7/tcp/4001/p2p/16Uiu2HA…"
        raise Misconfigured(f"{address!r} is no address like {wanted}: {error}") from error


def _require_free(address: str) -> None:
    """Refuse a TCP port somebody listens on: the library shares ports, and would not notice."""
    from multiaddr import Multiaddr  # noqa: PLC0415

    try:
        parts = dict(zip(*[iter(str(Multiaddr(address)).strip("/").split("/"))] * 2, strict=True))
        port = int(parts["tcp"])
        ip = parts.get("ip4") or parts["ip6"]
    except Exception as error:
        raise Misconfigured(f"{address!r} is no address like /ip4/0.0.0.0/tcp/4001") from error
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))
        except OSError as error:
            raise Misconfigured(f"cannot listen on {address}: {error.strerror}") from error


def _is_mismatch(error: BaseException | None) -> bool:
    """Whether a failed dial failed because another key answered; it lies deep in the causes."""
    from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey  # noqa: PLC0415

    pending = [error]
    while pending:
        cause = pending.pop()
        if isinstance(cause, PeerIDMismatchesPubkey) or "Peer ID mismatch" in str(cause or ""):
            return True
        if cause is not None:
            pending += [cause.__cause__, *getattr(cause, "errors", ())]
    return False


def _ignore(_connection: Connection) -> None: ...
