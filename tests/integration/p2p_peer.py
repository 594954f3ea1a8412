"""A peer in a process of its own, to be killed, frozen and restarted by the tests.

    python -m tests.integration.p2p_peer SECRET_HEX PORT

It prints its address once it listens, and echoes frames on `ECHO`.
"""

import sys
from typing import Final

import trio

from pinaivu.p2p import PeerId
from pinaivu.p2p.frames import FrameStream
from pinaivu.p2p.host import open_host

ECHO: Final = "/pinaivu/test-echo/1"


async def echo(_peer: PeerId, stream: FrameStream) -> None:
    """Send back every frame until the peer ends the stream."""
    while True:
        stream.send(await stream.receive())


async def main(secret: bytes, port: int) -> None:
    """Serve `ECHO` until killed."""
    async with open_host(secret, [f"/ip4/127.0.0.1/tcp/{port}"]) as host:
        host.serve(ECHO, echo)
        sys.stdout.write(host.addresses()[0] + "\n")
        sys.stdout.flush()
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, bytes.fromhex(sys.argv[1]), int(sys.argv[2]))
