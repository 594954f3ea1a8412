"""Hosts over loopback: identity, streams, limits, and what a bad peer can't do."""

import logging
import os
from contextlib import AsyncExitStack

import pytest
import trio

from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.keys import SecretKey, peer_id_of_point
from pinaivu.p2p import PeerId
from pinaivu.p2p.errors import (
    ConnectFailed,
    FrameTooLarge,
    NotConnected,
    SlowPeer,
    StreamBroken,
    StreamEnded,
    WrongPeer,
)
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import Host, open_host
from tests.integration.p2p_peer import ECHO, echo
from tests.integration.p2p_support import PATIENCE, until

ANY_PORT = "/ip4/127.0.0.1/tcp/0"


async def listener(stack: AsyncExitStack, secret: bytes | None = None) -> Host:
    """A listening host that echoes."""
    host = await stack.enter_async_context(open_host(secret or os.urandom(32), [ANY_PORT]))
    host.serve(ECHO, echo)
    return host


async def dialer(stack: AsyncExitStack) -> Host:
    """A host that only dials."""
    return await stack.enter_async_context(open_host(os.urandom(32)))


async def assert_echoes(stream: FrameStream, frame: bytes = b"ping") -> None:
    with trio.fail_after(PATIENCE):
        stream.send(frame)
        assert await stream.receive() == frame


async def receive_from(host: Host, address: str) -> None:
    """Connect, open a stream and receive: wherever a refused peer fails first."""
    with trio.fail_after(PATIENCE):
        peer = await host.connect(address)
        await (await host.open_stream(peer, ECHO)).receive()


async def test_both_sides_know_each_other_by_their_keys() -> None:
    server, client = SecretKey(os.urandom(32)), SecretKey(os.urandom(32))
    seen = []

    async def note(peer: PeerId, _stream: FrameStream) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(peer)

    async with open_host(server.secret, [ANY_PORT]) as there, open_host(client.secret) as here:
        there.serve("/pinaivu/test-note/1", note)
        peer = await here.connect(there.addresses()[0])
        stream = await here.open_stream(peer, "/pinaivu/test-note/1")
        with trio.fail_after(PATIENCE), pytest.raises(StreamEnded):
            await stream.receive()
        assert there.peer_id == peer == peer_id_of_point(server.point)
        assert here.peer_id == peer_id_of_point(client.point)
        assert seen == [here.peer_id]
        assert (here.peers(), there.peers()) == ([peer], [here.peer_id])
        assert here.addresses() == []


async def offered(host: Host, protocol: str) -> bool:
    """Whether a host agrees to a security protocol, asked in multistream-select on bare TCP."""
    port = int(host.addresses()[0].split("/")[4])
    lines = [b"/multistream/1.0.0\n", protocol.encode() + b"\n"]
    async with await trio.open_tcp_stream("127.0.0.1", port) as tcp:
        await tcp.send_all(b"".join(bytes([len(line)]) + line for line in lines))
        answer = b""
        with trio.fail_after(PATIENCE):
            while answer.count(b"\n") < 2:
                chunk = await tcp.receive_some()
                assert chunk, f"the host hung up after {answer!r}"
                answer += chunk
    last = answer.split(b"\n")[1][1:]
    assert last in (b"na", protocol.encode())
    return last != b"na"


async def test_plaintext_dialer_is_refused_and_only_noise_is_offered() -> None:
    """Over plaintext whoever knows a public key could pass for its owner."""
    async with AsyncExitStack() as stack:
        host = await listener(stack)
        assert await offered(host, "/noise")
        for protocol in ("/plaintext/2.0.0", "/plaintext/1.0.0", "/secio/1.0.0", "/tls/1.0.0"):
            assert not await offered(host, protocol)


async def test_listener_with_another_key_than_expected_is_refused() -> None:
    async with AsyncExitStack() as stack:
        there, here = await listener(stack), await dialer(stack)
        victim = peer_id_of_point(SecretKey(os.urandom(32)).point)
        place = there.addresses()[0].rpartition("/p2p/")[0]
        with pytest.raises(WrongPeer):
            await here.connect(f"{place}/p2p/{victim}")
        assert here.peers() == []
        await here.connect(there.addresses()[0])  # and the failure is not held against anybody


async def test_dialer_that_claims_anothers_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handshake names the victim's key, and can't be signed by it."""
    from libp2p.crypto.secp256k1 import create_new_key_pair  # noqa: PLC0415
    from libp2p.security.noise.patterns import PatternXX  # noqa: PLC0415

    victim = create_new_key_pair(os.urandom(32)).public_key
    honest = PatternXX.make_handshake_payload
    lies: list[object] = []
    async with AsyncExitStack() as stack:
        there, liar = await listener(stack), await dialer(stack)

        def lie(self: PatternXX, *args: object, **kwargs: object) -> object:
            payload = honest(self, *args, **kwargs)
            if str(self.local_peer) == liar.peer_id:
                payload.id_pubkey = victim
                lies.append(payload)
            return payload

        monkeypatch.setattr(PatternXX, "make_handshake_payload", lie)
        with pytest.raises((ConnectFailed, StreamBroken, NotConnected)):
            await receive_from(liar, there.addresses()[0])
        assert lies
        assert there.peers() == []


async def test_peer_without_a_secp256k1_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its peer id holds no point that an address could be derived from."""
    from libp2p.crypto import ed25519, secp256k1  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        there = await listener(stack)
        with monkeypatch.context() as patch:
            patch.setattr(secp256k1, "create_new_key_pair", ed25519.create_new_key_pair)
            stranger = await dialer(stack)
        assert stranger.peer_id.startswith("12D3Koo")
        with pytest.raises((ConnectFailed, StreamBroken, NotConnected)):
            await receive_from(stranger, there.addresses()[0])
        assert there.peers() == []


async def test_port_that_is_taken_is_named() -> None:
    async with AsyncExitStack() as stack:
        host = await listener(stack)
        address = host.addresses()[0].rpartition("/p2p/")[0]
        with pytest.raises(Misconfigured, match="already in use"):
            async with open_host(os.urandom(32), [address]):
                pytest.fail("two hosts on one port")


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1:4001", "/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWx"],
)
async def test_text_that_is_no_address_is_refused(address: str) -> None:
    async with open_host(os.urandom(32)) as host:
        with pytest.raises(Misconfigured, match="is no address like"):
            await host.connect(address)


async def test_failed_dial_can_be_repeated_at_once() -> None:
    """The library itself would refuse the peer for a minute."""
    secret = os.urandom(32)
    async with AsyncExitStack() as stack:
        here = await dialer(stack)
        async with open_host(secret, [ANY_PORT]) as gone:
            address = gone.addresses()[0]
        for _ in range(2):
            with trio.fail_after(PATIENCE), pytest.raises(ConnectFailed):
                await here.connect(address)
        port = address.split("/")[4]
        async with open_host(secret, [f"/ip4/127.0.0.1/tcp/{port}"]):
            with trio.fail_after(PATIENCE):
                await here.connect(address)


async def test_dial_to_a_listener_that_says_nothing_ends_with_the_handshake_timeout() -> None:
    stranger = peer_id_of_point(SecretKey(os.urandom(32)).point)
    async with open_host(os.urandom(32), handshake_timeout=0.3) as host:
        [mute] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = mute.socket.getsockname()[1]
        with trio.fail_after(PATIENCE), pytest.raises(ConnectFailed):
            await host.connect(f"/ip4/127.0.0.1/tcp/{port}/p2p/{stranger}")
        await mute.aclose()


async def test_dialer_that_says_nothing_is_hung_up_on() -> None:
    async with open_host(os.urandom(32), [ANY_PORT], handshake_timeout=0.3) as host:
        port = int(host.addresses()[0].split("/")[4])
        async with await trio.open_tcp_stream("127.0.0.1", port) as tcp:
            with trio.fail_after(PATIENCE):
                while await tcp.receive_some():
                    pass


async def test_error_of_the_callers_comes_out_of_the_host_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_host(os.urandom(32)):
            raise ZeroDivisionError


async def test_announced_addresses_replace_the_own_view() -> None:
    async with open_host(
        os.urandom(32), [ANY_PORT], announce=["/dns4/gw.example/tcp/4001"]
    ) as host:
        assert host.addresses() == [f"/dns4/gw.example/tcp/4001/p2p/{host.peer_id}"]


async def test_stream_to_a_stranger_or_for_an_unknown_protocol_fails() -> None:
    async with AsyncExitStack() as stack:
        there, here = await listener(stack), await dialer(stack)
        with pytest.raises(NotConnected):
            await here.open_stream(there.peer_id, ECHO)
        peer = await here.connect(there.addresses()[0])
        with pytest.raises(StreamBroken, match="/unknown/1"):
            await here.open_stream(peer, "/unknown/1")
        await assert_echoes(await here.open_stream(peer, ECHO))


async def test_oversize_frame_drops_the_peer_that_sent_it() -> None:
    broken = trio.Event()

    async def receive(_peer: PeerId, stream: FrameStream) -> None:
        with pytest.raises(FrameTooLarge):
            await stream.receive()
        broken.set()

    async with AsyncExitStack() as stack:
        there, here = await listener(stack), await dialer(stack)
        there.serve("/small/1", receive, FrameLimits.of(1000))
        peer = await here.connect(there.addresses()[0])
        stream = await here.open_stream(peer, "/small/1")
        stream.send(bytes(1001))
        with trio.fail_after(PATIENCE):
            await broken.wait()
            await stream.wait_over()
        await until(lambda: not there.peers())
        await until(lambda: not here.peers())
        assert there.drops == {"oversize frame": 1}


async def test_peer_that_does_not_read_is_dropped_and_delays_nobody() -> None:
    """Only the other side's flow control holds it back: it is alive and answers pings."""

    async def never_read(_peer: PeerId, stream: FrameStream) -> None:
        await stream.wait_over()

    async with AsyncExitStack() as stack:
        slow, quick = await listener(stack), await listener(stack)
        here = await dialer(stack)
        slow.serve("/slow/1", never_read, FrameLimits(inbox_bytes=1000))
        to_slow = await here.open_stream(
            await here.connect(slow.addresses()[0]),
            "/slow/1",
            FrameLimits(outbox_bytes=8 << 20, write_timeout=1.0),
        )
        to_quick = await here.open_stream(await here.connect(quick.addresses()[0]), ECHO)
        for _ in range(100):
            to_slow.send(bytes(64_000))
        echoes = 0
        with trio.fail_after(PATIENCE):
            while not to_slow.over:
                await assert_echoes(to_quick)
                echoes += 1
        assert echoes > 1
        with pytest.raises(SlowPeer, match="write timeout"):
            to_slow.send(b"more")
        assert here.drops == {"slow: write timeout": 1}
        await until(lambda: not slow.peers())
        assert here.peers() == [quick.peer_id]


async def test_handler_that_fails_ends_its_stream_only(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_peer: PeerId, stream: FrameStream) -> None:
        await stream.receive()
        raise ZeroDivisionError

    async with AsyncExitStack() as stack:
        there, here = await listener(stack), await dialer(stack)
        there.serve("/fail/1", fail)
        peer = await here.connect(there.addresses()[0])
        with caplog.at_level(logging.ERROR):
            stream = await here.open_stream(peer, "/fail/1")
            stream.send(b"x")
            with trio.fail_after(PATIENCE), pytest.raises(StreamBroken):
                await stream.receive()
        assert "ZeroDivisionError" in caplog.text
        await assert_echoes(await here.open_stream(peer, ECHO))


async def test_more_streams_than_the_muxer_has_one_after_another() -> None:
    """Closed and reset streams give their place back."""
    async with AsyncExitStack() as stack:
        there, here = await listener(stack), await dialer(stack)
        peer = await here.connect(there.addresses()[0])
        for number in range(300):
            stream = await here.open_stream(peer, ECHO)
            if number % 3 == 0:
                stream.reset()
            else:
                await assert_echoes(stream)
                await stream.aclose()


async def test_more_streams_than_the_muxer_has_at_once_fail_instead_of_waiting() -> None:
    async with AsyncExitStack() as stack:
        there, here = await listener(stack), await dialer(stack)
        peer = await here.connect(there.addresses()[0])
        streams = [await here.open_stream(peer, ECHO) for _ in range(256)]
        with trio.fail_after(PATIENCE), pytest.raises(NotConnected, match="256 streams"):
            await here.open_stream(peer, ECHO)
        await assert_echoes(streams[-1])


async def test_streams_given_up_in_any_state_do_not_hurt_their_neighbours() -> None:
    """Interrupting the library in a write would desynchronise the whole connection."""
    async with AsyncExitStack() as stack:
        there, here = await listener(stack), await dialer(stack)
        peer = await here.connect(there.addresses()[0])
        steady = await here.open_stream(peer, ECHO)
        for number in range(60):
            with trio.move_on_after(number * 0.0004):
                stream = await here.open_stream(peer, ECHO)
                stream.send(bytes(200_000))
                try:
                    await stream.receive()
                finally:
                    stream.reset()
            await assert_echoes(steady, b"%d" % number)
        assert here.drops == there.drops == {}


async def test_streams_leave_no_task_behind_however_they_end() -> None:
    async with AsyncExitStack() as stack:
        there, here = await listener(stack), await dialer(stack)
        there.serve("/refuse/1", refuse)
        peer = await here.connect(there.addresses()[0])
        await assert_echoes(await here.open_stream(peer, ECHO))
        before = [len(host._nursery.child_tasks) for host in (here, there)]
        for end in ("closed", "reset", "reset by the peer", "cancelled"):
            with trio.CancelScope() as scope:
                stream = await here.open_stream(peer, ECHO)
                if end == "closed":
                    await stream.aclose()
                elif end == "reset":
                    stream.reset()
                elif end == "cancelled":
                    scope.cancel()
                    await here.open_stream(peer, ECHO)
                else:
                    other = await here.open_stream(peer, "/refuse/1")
                    other.send(b"please")
                    await other.wait_over()
            if not stream.over:
                stream.reset()
        await until(lambda: [len(host._nursery.child_tasks) for host in (here, there)] == before)


async def refuse(_peer: PeerId, stream: FrameStream) -> None:
    raise NotConnected((await stream.receive()).decode())


async def test_large_frames_arrive_whole() -> None:
    frame = os.urandom(3 << 20)
    async with AsyncExitStack() as stack:
        there, here = await listener(stack), await dialer(stack)
        there.serve("/large/1", echo, FrameLimits.of(4 << 20))
        peer = await here.connect(there.addresses()[0])
        stream = await here.open_stream(peer, "/large/1", FrameLimits.of(4 << 20))
        await assert_echoes(stream, frame)


async def test_cancelled_host_frees_its_port_and_its_peers_notice() -> None:
    secret = os.urandom(32)
    async with AsyncExitStack() as stack:
        here = await dialer(stack)
        port = 0
        for _ in range(2):
            with trio.CancelScope() as scope:
                async with open_host(secret, [f"/ip4/127.0.0.1/tcp/{port}"]) as there:
                    there.serve(ECHO, echo)
                    peer = await here.connect(there.addresses()[0])
                    stream = await here.open_stream(peer, ECHO)
                    await assert_echoes(stream)
                    port = int(there.addresses()[0].split("/")[4])
                    scope.cancel()
            with trio.fail_after(PATIENCE), pytest.raises(StreamBroken):
                await stream.receive()


async def test_secret_that_is_no_key_is_refused() -> None:
    with pytest.raises(InvalidEncoding):
        async with open_host(bytes(32)):
            pytest.fail("a host without a key")
