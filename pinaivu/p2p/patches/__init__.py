"""Small patches of py-libp2p 0.8.1, each of them written so that it could go upstream.

Nothing depends on them but speed: what crosses the wire is what the library would send, window
updates apart, which are fewer. Each module says what the library does, why that costs, what its
patches do, and why they are right.

    pins     what a patch is, and what it refuses
    locks    locks that are free are taken without giving way
    sockets  reading ahead from a socket
    yamux    frames without formatting, credit by half windows

Import this only where libp2p may be imported, which takes seconds.
"""

from importlib.metadata import version
from typing import Final

from pinaivu.p2p.patches import locks, sockets, yamux
from pinaivu.p2p.patches.pins import Patch, PatchRefused, apply

WANTED: Final = "0.8.1"
PATCHES: Final[tuple[Patch, ...]] = (*locks.PATCHES, *sockets.PATCHES, *yamux.PATCHES)

__all__ = ["PATCHES", "WANTED", "PatchRefused", "patch_libp2p"]


def patch_libp2p() -> None:
    """Put all patches in force, before the first connection of the process is made.

    Raises `PatchRefused`, and changes nothing, where the library isn't the one they are for.
    """
    apply(PATCHES, found=version("libp2p"), wanted=WANTED)
