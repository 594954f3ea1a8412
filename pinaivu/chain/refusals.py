"""What an endpoint's refusal means: JSON-RPC errors sorted by who has to do something about it.

Endpoints agree on no codes for these, so texts are matched: the ones of geth, reth, erigon,
Nethermind and anvil.
"""

from typing import Final

from pinaivu.chain.abi import decode_revert
from pinaivu.chain.errors import CallTooLarge, NoGasMoney, RpcRefused
from pinaivu.chain.words import from_hex
from pinaivu.errors import PinaivuError

_REVERT_CODE: Final = 3
_NO_MONEY: Final = ("insufficient funds", "insufficientfunds", "insufficient balance")
_TOO_LARGE: Final = (
    *("gas limit", "gas_limit", "gas cap", "gas required exceeds", "gas too high"),
    *("out of gas", "oversized"),
)
_KNOWN: Final = ("already known", "already imported", "alreadyknown", "known transaction")
_NONCE_TAKEN: Final = ("nonce too low", "nonce is too low", "oldnonce", "replacement transaction")


def meaning(what: str, refused: RpcRefused) -> PinaivuError:
    """`Reverted`, `NoGasMoney` or `CallTooLarge` where `refused` means that, else `refused`."""
    text = refused.message.lower()
    if refused.code == _REVERT_CODE or "revert" in text:
        return decode_revert(what, _revert_data(refused))
    if _says(text, _NO_MONEY):
        return NoGasMoney(f"{what}: the sending account can't pay for gas; send coin to it")
    if _says(text, _TOO_LARGE):
        return CallTooLarge(f"{what} does not fit one transaction ({refused.message})")
    return refused


def is_known(refused: RpcRefused) -> bool:
    """Whether the endpoint holds these very bytes already."""
    return _says(refused.message.lower(), _KNOWN)


def is_nonce_taken(refused: RpcRefused) -> bool:
    """Whether another transaction of this account has the nonce."""
    return _says(refused.message.lower(), _NONCE_TAKEN)


def _says(text: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in text for phrase in phrases)


def _revert_data(refused: RpcRefused) -> bytes:
    data = refused.data.get("data") if isinstance(refused.data, dict) else refused.data
    return from_hex(data) if isinstance(data, str) and data.startswith("0x") else b""
