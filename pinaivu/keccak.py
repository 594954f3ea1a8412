"""Keccak-256 as Ethereum uses it (the padding before FIPS 202's), in C: everything is named by it.

>>> keccak(b"").hex()[:16]
'c5d2460186f7233c'
"""

from sha3 import keccak_256


def keccak(data: bytes) -> bytes:
    """The 32 bytes of a message's digest."""
    digest: bytes = keccak_256(data).digest()
    return digest
