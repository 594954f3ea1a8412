"""A connection that broke while nobody looked: its ping fails, and that ends nothing else."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import trio
import trio.testing

from pinaivu.p2p.connections import Connection
from pinaivu.p2p.host import Host, Liveness
from tests.unit.p2p_pipes import PEER


async def test_peer_that_gave_us_up_while_we_were_frozen(autojump_clock: Any) -> None:
    """The first thing tried after a freeze is a ping, on a socket that the peer has closed."""
    del autojump_clock
    muxer = SimpleNamespace(
        event_shutting_down=trio.Event(),
        secured_conn=AsyncMock(),
        _write_frame=AsyncMock(side_effect=BrokenPipeError("broken pipe")),
    )
    library: Any = SimpleNamespace(peer_id=PEER, on_connected=lambda _heard: None)
    async with trio.open_nursery() as nursery:
        host = Host(library, nursery, (), Liveness(), 10.0)
        connection = Connection(PEER, SimpleNamespace(muxed_conn=muxer, close=AsyncMock()))
        host._connected(connection)
        assert host.peers() == [PEER]
        await trio.sleep(Liveness().ping_after + 0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert host.peers() == []
        assert muxer.secured_conn.close.await_count == 1
