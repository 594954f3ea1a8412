"""Contract reads: one or many ``eth_call``s at one block, decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pinaivu.chain.abi import Item, load
from pinaivu.chain.calls import Call
from pinaivu.chain.errors import RpcRefused
from pinaivu.chain.refusals import meaning
from pinaivu.chain.rpc import JsonRpc, Request
from pinaivu.chain.words import from_hex, to_hex


@dataclass(frozen=True, slots=True)
class View:
    """One read: a function of a contract, and its arguments already encoded."""

    to: bytes
    item: Item
    data: bytes

    @property
    def what(self) -> str:
        """Its name in messages."""
        return f"{self.item.contract}.{self.item.name}"


def view(abi: str, address: bytes, function: str, *arguments: object) -> View:
    """A read of `function` of the contract at `address`."""
    item = load(abi).function(function)
    return View(address, item, item.encode(*arguments))


def read(rpc: JsonRpc, asked: View, block: int | None = None) -> tuple[Any, ...]:
    """Return values at `block` (None: latest); `Reverted` where the contract refused."""
    method, params = _request(asked, block)
    try:
        result = rpc.call(method, *params)
    except RpcRefused as refused:
        raise meaning(asked.what, refused) from refused
    return asked.item.decode_result(from_hex(result))


def read_many(
    rpc: JsonRpc, asked: Sequence[View], block: int | None = None
) -> list[tuple[Any, ...]]:
    """`read` of each, in few round trips. One view only if `block` is given."""
    try:
        results = rpc.batch([_request(one, block) for one in asked])
    except RpcRefused as refused:
        raise meaning("a batch of reads", refused) from refused
    return [one.item.decode_result(from_hex(raw)) for one, raw in zip(asked, results, strict=True)]


def simulate(rpc: JsonRpc, call: Call, sender: bytes = bytes(20)) -> None:
    """Run a call at the head without sending it; `Reverted` where it would fail.

    `sender`: nobody, unless the contract looks at who calls.
    """
    asked = call.request() | ({"from": to_hex(sender)} if any(sender) else {})
    try:
        rpc.call("eth_call", asked, "latest")
    except RpcRefused as refused:
        raise meaning(call.what, refused) from refused


def _request(asked: View, block: int | None) -> Request:
    at = "latest" if block is None else hex(block)
    return "eth_call", [{"to": to_hex(asked.to), "data": to_hex(asked.data)}, at]
