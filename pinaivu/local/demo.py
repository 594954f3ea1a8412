"""The first request through a local network, shown from prompt to payout.

Every figure printed is read from where it says: the answer from the SDK, the receipt from the
gateway, the settlement and the balances from the chain.
"""

import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import httpx
from msgspec import Struct
from openai import OpenAI

from pinaivu.chain.calls import Calls
from pinaivu.chain.events import LogReader
from pinaivu.codes import Status
from pinaivu.errors import PinaivuError, TransportFailure
from pinaivu.keys import checksum
from pinaivu.local.folder import MODEL, NODES
from pinaivu.local.network import Network
from pinaivu.messages import Receipt
from pinaivu.typed_data import Signed, signed_from_json

PROMPT: Final = "In one sentence, what does a blockchain do?"
MAX_TOKENS: Final = 80
_SETTLED_WITHIN_S: Final = 60.0
_POLL_S: Final = 0.2
Out = Callable[..., None]


class DemoFailed(PinaivuError):
    """A step of the first request did not do what it should."""


class Answered(Struct, frozen=True):
    """What came back from the SDK."""

    request_id: str
    text: str
    body: dict[str, Any]
    first_token_s: float
    total_s: float


def ask(network: Network, api_key: str, out: Out) -> Answered:
    """Stream one answer through the official SDK, printing as it comes."""
    client = OpenAI(base_url=f"{network.gateway_url}/v1", api_key=api_key, max_retries=0)
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
    }
    started, first, text, request_id = time.monotonic(), 0.0, "", ""
    for chunk in client.chat.completions.create(**body, stream=True):
        request_id = getattr(chunk, "request_id", None) or request_id
        piece = chunk.choices[0].delta.content if chunk.choices else None
        if piece:
            first = first or time.monotonic() - started
            text += piece
            out(piece, end="")
    out("")
    if not text or not request_id:
        raise DemoFailed("the answer was empty or carried no request_id")
    return Answered(request_id, text, body, first, time.monotonic() - started)


def await_receipt(network: Network, api_key: str, request_id: str) -> tuple[Signed[Receipt], int]:
    """The receipt and its index, once it is settled and final."""
    url = f"{network.gateway_url}/v1/receipts/{request_id}"
    deadline, state = time.monotonic() + _SETTLED_WITHIN_S, "none"
    while time.monotonic() < deadline:
        answer = httpx.get(url, headers={"Authorization": f"Bearer {api_key}"}, timeout=10)
        if answer.status_code == httpx.codes.OK:
            found = answer.json()
            state = found["settlement"]["state"]
            if state == "final":
                return signed_from_json(Receipt, found["receipt"]), found["index"]
        time.sleep(_POLL_S)
    raise TransportFailure(f"the receipt did not settle in {_SETTLED_WITHIN_S:.0f} s: {state}")


def bundle(network: Network, api_key: str, request_id: str) -> bytes:
    """Everything needed to verify the request, from the gateway."""
    url = f"{network.gateway_url}/v1/receipts/{request_id}/bundle"
    answer = httpx.get(url, headers={"Authorization": f"Bearer {api_key}"}, timeout=30)
    if answer.status_code != httpx.codes.OK:
        raise TransportFailure(f"{url} answered {answer.status_code}: {answer.text[:300]}")
    return answer.content


def settlement_of(network: Network, index: int) -> dict[str, Any]:
    """The chain's own event of the batch that holds a leaf."""
    client = network.chain.client
    reader = LogReader.of(client.rpc, client.deployment)
    for event in reader.read(client.deployment.block, client.head()):
        said = event.arguments
        if event.name == "BatchSettled" and said["prevSize"] <= index < said["newSize"]:
            return {**said, "block": event.block_number, "transaction": event.tx_hash}
    raise DemoFailed(f"the chain holds no batch with leaf {index}")


class Wallets(Struct, frozen=True):
    """Each node's payout wallet on chain: tokens held, and credit ever paid into it."""

    held: dict[str, int]
    credited: dict[str, int]
    unpaid: dict[str, int]


def read_wallets(network: Network) -> Wallets:
    """Balances of the payout wallets, and what the contract owes and ever credited."""
    client = network.chain.client
    addresses = {name: network.folder.key(name).address for name in NODES}
    payouts = {name: network.folder.key(f"{name}-payout").address for name in NODES}
    owed = dict(zip(NODES, client.node_credits(list(addresses.values())), strict=True))
    return Wallets(
        held={name: client.token_balance(payouts[name]) for name in NODES},
        credited={name: owed[name].lifetime for name in NODES},
        unpaid={name: owed[name].credit for name in NODES},
    )


def pay_out(network: Network) -> None:
    """Push all node credit to the payout wallets; anybody may."""
    nodes = [network.folder.key(name).address for name in NODES]
    calls = Calls(network.chain.client.deployment)
    network.chain.sender("operator").send(calls.payout(nodes))


def describe(receipt: Receipt, index: int, names: dict[bytes, str]) -> list[str]:
    """A receipt's lines for people."""
    lines = [
        f"request      {_uuid(receipt.job_id)}   {Status(receipt.status).name.lower()}",
        f"model        {receipt.model}   fingerprint 0x{receipt.fingerprint.hex()[:16]}…",
        f"auction      {receipt.bids} bids, transcript root 0x{receipt.bids_root.hex()[:16]}…",
    ]
    for s in receipt.segments:
        name = names.get(s.node, "?")
        lines += [
            f"served by    {name} {checksum(s.node)} (rank {s.rank})",
            f"tokens       {s.prompt_billed} in, {s.output_billed} out billed",
            f"counted      {s.output_node} out by the node, {s.output_gateway} by the gateway",
            f"price        {s.price_in} in, {s.price_out} out, base units per million tokens",
            f"amount       {s.amount} base units, of which fee {s.fee}",
        ]
    lines.append(f"log          leaf {index}, payer's receipt number {receipt.payer_counter}")
    return lines


def _uuid(job_id: bytes) -> str:
    return str(UUID(bytes=job_id))
