"""Messages of noise with fewer calls in between.

What the library does: reading a message passes six coroutines twice, once for the length and once
for the rest, and formats three lines for a log that is off.

What the patch does: the same two reads of the same socket, called from one place.

Why that is right: nothing else reads from the connection once noise does, and lengths, order and
decryption are the library's.
"""

from typing import Any

from libp2p.io.utils import read_exactly
from libp2p.security.noise.io import SIZE_NOISE_MESSAGE_LEN, BaseNoiseMsgReadWriter

from pinaivu.p2p.patches.pins import Patch


async def read_msg(self: Any, prefix_encoded: bool = False) -> bytes:  # noqa: FBT001, FBT002
    """The next message, decrypted."""
    source = self.read_writer.read_write_closer
    size = int.from_bytes(await read_exactly(source, SIZE_NOISE_MESSAGE_LEN))
    message = await read_exactly(source, size)
    plain: bytes = self.decrypt(message[len(self.prefix) :] if prefix_encoded else message)
    return plain


PATCHES = (Patch(BaseNoiseMsgReadWriter, "read_msg", "b2fa218c135c82c0", read_msg),)
