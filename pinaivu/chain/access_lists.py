"""Names a wide call's storage slots beforehand, where that is cheaper (EIP-2930).

By EIP-2929 the first read of a slot costs 2,100; named in the transaction it costs 1,900 there and
100 when read. Another contract costs 2,600, or 2,400 and 100. The called contract itself costs
nothing more as long as none of its slots is named, else 2,400. So lists pay from 25 slots on, as a
batch's rows have them. What an endpoint says of the slots is believed: a wrong
list changes no outcome and costs gas, within the limit that was estimated without it.
"""

from collections.abc import Mapping
from typing import Any, Final

from pinaivu.chain.calls import Call
from pinaivu.chain.errors import RpcRefused
from pinaivu.chain.rpc import JsonRpc
from pinaivu.chain.words import from_hex

AccessList = tuple[tuple[bytes, tuple[bytes, ...]], ...]
"""Addresses and their slots, in the endpoint's order."""

SAVED_PER_ENTRY: Final = 100
OWN_ADDRESS: Final = 2_400


def access_list(rpc: JsonRpc, sender: bytes, call: Call) -> AccessList:
    """The slots that a wide call touches; empty where naming them saves nothing.

    Also empty where the endpoint can't tell. Raises `ChainUnavailable`.
    """
    if not call.wide:
        return ()
    try:
        found: Mapping[str, Any] = rpc.call("eth_createAccessList", call.request(sender), "pending")
    except RpcRefused:
        return ()
    entries = tuple(
        (from_hex(entry["address"]), tuple(from_hex(key) for key in entry["storageKeys"]))
        for entry in found["accessList"]
    )
    return entries if saving(entries, call.to) > 0 else ()


def saving(entries: AccessList, to: bytes) -> int:
    """Gas that a list saves a call to `to`, if each entry is used; negative where it costs."""
    slots = sum(len(keys) for _, keys in entries)
    others = sum(address != to for address, _ in entries)
    own = OWN_ADDRESS if others != len(entries) else 0
    return SAVED_PER_ENTRY * (slots + others) - own
