"""The hex forms of JSON-RPC, read strictly: quantities are ``0x1f``, bytes are ``0x001f``."""

from pinaivu.chain.errors import ChainUnavailable


def to_hex(data: bytes) -> str:
    """Bytes as an endpoint takes them."""
    return "0x" + data.hex()


def from_hex(raw: object) -> bytes:
    """Bytes as an endpoint gave them; `ChainUnavailable` for anything else."""
    if isinstance(raw, str) and raw.startswith("0x"):
        try:
            return bytes.fromhex(raw[2:])
        except ValueError:
            pass
    raise ChainUnavailable(f"the chain endpoint answered {raw!r:.80} where bytes were due")


def quantity(raw: object) -> int:
    """A number as an endpoint gave it; `ChainUnavailable` for anything else."""
    if isinstance(raw, str) and raw.startswith("0x"):
        try:
            return int(raw, 16)
        except ValueError:
            pass
    raise ChainUnavailable(f"the chain endpoint answered {raw!r:.80} where a number was due")
