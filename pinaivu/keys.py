"""secp256k1 keys as wallet, Python and Solidity agree on them.

A signature is 65 bytes ``r ‖ s ‖ v`` with s in the lower half and v 27 or 28; nothing else is
accepted. Addresses are 20 raw bytes; `checksum` shows them to people. Nothing here hashes a
message: callers sign digests made by `pinaivu.typed_data`.
"""

from collections.abc import Callable
from typing import Final, Self

import base58
from coincurve import PrivateKey, PublicKey

from pinaivu.errors import InvalidEncoding, PeerFault
from pinaivu.keccak import keccak

ADDRESS_BYTES: Final = 20
SECRET_BYTES: Final = 32
SIGNATURE_BYTES: Final = 65
ZERO_ADDRESS: Final = bytes(ADDRESS_BYTES)
_HALF_ORDER: Final = 0x7FFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_5D576E73_57A4501D_DFE92F46_681B20A0
_PEER_PREFIX: Final = bytes.fromhex("002508021221")


class BadSignature(PeerFault):
    """A signature is malformed, malleated or by another key than the one named."""


class SecretKey:
    """A secp256k1 secret; signs digests. Never shows itself in `repr`, logs or pickles."""

    __slots__ = ("_key", "address", "point")

    address: bytes
    point: bytes

    def __init__(self, secret: bytes) -> None:
        """Take 32 secret bytes; `InvalidEncoding` when they are no valid scalar."""
        if len(secret) != SECRET_BYTES:
            raise InvalidEncoding(f"a secp256k1 secret is {SECRET_BYTES} bytes")
        try:
            self._key = PrivateKey(secret)
        except (ValueError, TypeError) as error:
            raise InvalidEncoding("a secp256k1 secret is 32 bytes in [1, n)") from error
        self.point = self._key.public_key.format(compressed=False)[1:]
        self.address = address_of_point(self.point)

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> Self:
        """A fresh key from `random(32)`, drawn again in the 2⁻¹²⁸ case of an invalid scalar."""
        while True:
            try:
                return cls(random(32))
            except InvalidEncoding:
                continue

    @property
    def secret(self) -> bytes:
        """The 32 secret bytes, for the one place that stores or hands them over."""
        return self._key.secret

    @property
    def compressed(self) -> bytes:
        """The public key as 33 SEC1 bytes."""
        return self._key.public_key.format(compressed=True)

    def sign(self, digest: bytes) -> bytes:
        """Sign a 32-byte digest (RFC 6979); 65 bytes ``r ‖ s ‖ v``."""
        signature = self._key.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes((27 + signature[64],))

    def __repr__(self) -> str:
        return f"SecretKey(address={checksum(self.address)})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a SecretKey is not pickled")


def recover(digest: bytes, signature: bytes) -> bytes:
    """The address whose key signed `digest`; `BadSignature` for any non-canonical signature."""
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (27, 28):
        raise BadSignature("a signature is 65 bytes r ‖ s ‖ v with v 27 or 28")
    if int.from_bytes(signature[32:64]) > _HALF_ORDER:
        raise BadSignature("the signature's s is in the upper half")
    recoverable = signature[:64] + bytes((signature[64] - 27,))
    try:
        key = PublicKey.from_signature_and_message(recoverable, digest, hasher=None)
    except Exception as error:  # coincurve raises bare Exception here
        raise BadSignature("the signature recovers to no key") from error
    return address_of_point(key.format(compressed=False)[1:])


def require_signer(digest: bytes, signature: bytes, signer: bytes, what: str) -> None:
    """Raise `BadSignature` naming `what` unless `signer` signed `digest`."""
    found = recover(digest, signature)
    if found != signer:
        raise BadSignature(f"{what} is signed by {checksum(found)}, expected {checksum(signer)}")


def address_of_point(point: bytes) -> bytes:
    """``keccak(x ‖ y)[12:]`` of a 64-byte public point."""
    return keccak(point)[12:]


def point_of_compressed(compressed: bytes) -> bytes:
    """The 64-byte point of a 33-byte SEC1 key; `InvalidEncoding` when it isn't on the curve."""
    try:
        return PublicKey(compressed).format(compressed=False)[1:]
    except (ValueError, TypeError) as error:
        raise InvalidEncoding("no point on secp256k1") from error


def compressed_of_point(point: bytes) -> bytes:
    """The 33-byte SEC1 form of a 64-byte point; `InvalidEncoding` when it isn't on the curve."""
    try:
        return PublicKey(b"\x04" + point).format(compressed=True)
    except (ValueError, TypeError) as error:
        raise InvalidEncoding("no point on secp256k1") from error


def peer_id_of_point(point: bytes) -> str:
    """The libp2p peer id (``16Uiu2HA…``) that inlines this public key."""
    return base58.b58encode(_PEER_PREFIX + compressed_of_point(point)).decode("ascii")


def point_of_peer_id(peer_id: str) -> bytes:
    """The 64-byte point inlined in a peer id; `InvalidEncoding` for other kinds of peer id."""
    try:
        raw = base58.b58decode(peer_id)
    except ValueError as error:
        raise InvalidEncoding(f"{peer_id!r} is not base58") from error
    if len(raw) != len(_PEER_PREFIX) + 33 or not raw.startswith(_PEER_PREFIX):
        raise InvalidEncoding(f"{peer_id!r} does not inline a secp256k1 key")
    return point_of_compressed(raw[len(_PEER_PREFIX) :])


def checksum(address: bytes) -> str:
    """An address as people read it: EIP-55 mixed-case hex."""
    plain = address.hex()
    digest = keccak(plain.encode("ascii")).hex()
    marked = (c.upper() if int(d, 16) > 7 else c for c, d in zip(plain, digest, strict=False))  # noqa: PLR2004 - EIP-55
    return "0x" + "".join(marked)
