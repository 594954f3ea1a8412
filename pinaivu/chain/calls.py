"""What can be written to the chain, as values: build a `Call`, hand it to a `Transactor`.

    >>> calls = Calls(deployment)  # doctest: +SKIP
    >>> transactor.send(calls.assign(log_id))  # doctest: +SKIP

Who may make a call, and whether it makes sense now, is for the contract to say.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import TypeVar

from msgspec import Struct

from pinaivu.chain.abi import load
from pinaivu.chain.deployment import CONTRACTS, Deployment
from pinaivu.chain.records import Anchor, ModelRecord
from pinaivu.chain.words import to_hex
from pinaivu.keccak import keccak
from pinaivu.messages import (
    Batch,
    Checkpoint,
    Completion,
    GatewayRegistration,
    NodeRegistration,
    Receipt,
    Verdict,
)
from pinaivu.typed_data import Signed

_Pair = TypeVar("_Pair", Completion, Checkpoint)


@dataclass(frozen=True, slots=True)
class Call:
    """A transaction's content. `what` names it in messages, `value` is wei, empty `to` creates.

    `wide` calls touch so many storage slots that naming them beforehand (EIP-2930) may save gas.
    """

    what: str
    to: bytes
    data: bytes
    value: int = 0
    wide: bool = False

    def request(self, sender: bytes | None = None) -> dict[str, str]:
        """The call as JSON-RPC methods that run or estimate it take it; from nobody by default."""
        fields = {"data": to_hex(self.data)}
        if sender is not None:
            fields["from"] = to_hex(sender)
        if self.to:
            fields["to"] = to_hex(self.to)
        if self.value:
            fields["value"] = hex(self.value)
        return fields


class _Target:
    """Builds calls to one contract."""

    def __init__(self, abi: str, address: bytes) -> None:
        self._abi = abi
        self._address = address

    def __call__(self, function: str, *arguments: object) -> Call:
        item = load(self._abi).function(function)
        return Call(f"{self._abi}.{item.name}", self._address, item.encode(*arguments))


class Calls:
    """Every call the network needs. Amounts are base units, points 64 bytes, delays the chain's."""

    def __init__(self, deployment: Deployment) -> None:
        self._spender = deployment.settlement
        self._bond_spender = deployment.node_registry
        self._token = _Target("TestToken", deployment.token)
        at = {name: _Target(abi, getattr(deployment, name)) for name, abi in CONTRACTS.items()}
        self._settlement = at["settlement"]
        self._logs = at["receipt_log"]
        self._enclaves = at["enclave_registry"]
        self._nodes = at["node_registry"]
        self._faults = at["objective_faults"]
        self._gateways = at["gateway_registry"]
        self._models = at["model_registry"]

    # Token

    def approve(self, amount: int) -> Call:
        """Let Settlement take up to `amount` of the sender's tokens."""
        return self._token("approve", self._spender, amount)

    def approve_bond(self, amount: int) -> Call:
        """Let NodeRegistry take up to `amount` of the sender's tokens, for `bond`."""
        return self._token("approve", self._bond_spender, amount)

    def mint(self, to: bytes, amount: int) -> Call:
        """New tokens for `to`; only the development token can."""
        return self._token("mint", to, amount)

    def transfer(self, to: bytes, amount: int) -> Call:
        """Send the sender's tokens."""
        return self._token("transfer", to, amount)

    # Payers

    def deposit(self, amount: int) -> Call:
        """Pay into the sender's balance; needs `approve` before."""
        return self._settlement("deposit", amount)

    def deposit_for(self, payer: bytes, amount: int) -> Call:
        """Pay into `payer`'s balance; needs `approve` before."""
        return self._settlement("depositFor", payer, amount)

    def deposit_with_permit(
        self, payer: bytes, amount: int, deadline_s: int, permit_signature: bytes
    ) -> Call:
        """`deposit_for` with the sender's permit (`ChainClient.permit_digest`), no `approve`."""
        r, s, v = permit_signature[:32], permit_signature[32:64], permit_signature[64]
        return self._settlement("depositWithPermit", payer, amount, deadline_s, v, r, s)

    def assign(self, log_id: bytes) -> Call:
        """Let a log's batches debit the sender, who has no log yet."""
        return self._settlement("assign", log_id)

    def request_move(self, next_log_id: bytes) -> Call:
        """Ask to move the sender's balance to another log (zero: none)."""
        return self._settlement("requestMove", next_log_id)

    def complete_move(self) -> Call:
        """Move it, once the delay is over."""
        return self._settlement("completeMove")

    def bump_grant_epoch(self) -> Call:
        """Revoke every grant the sender has signed so far."""
        return self._settlement("bumpGrantEpoch")

    def request_withdrawal(self, amount: int) -> Call:
        """Ask for `amount` back; replaces a pending request, 0 cancels."""
        return self._settlement("requestWithdrawal", amount)

    def withdraw(self, to: bytes) -> Call:
        """Pay the requested amount out, once the delay is over."""
        return self._settlement("withdraw", to)

    # Batches and what they pay

    def settle(
        self, batch: Signed[Batch], consistency_proof: Sequence[bytes], last: Anchor
    ) -> Call:
        """Settle a log's next batch; `last` is the log's anchor so far (`ChainClient.anchor`)."""
        words = (last.prev_size, last.batch_digest)
        call = self._settlement(
            "settle", members(batch.message), batch.signature, list(consistency_proof), words
        )
        return replace(call, wide=True)

    def payout(self, nodes: Sequence[bytes]) -> Call:
        """Pay each node's credit to its payout wallet."""
        return self._settlement("payout", list(nodes))

    def withdraw_credit(self) -> Call:
        """Pay the sending node's credit to its payout wallet."""
        return self._settlement("withdrawCredit")

    def fund_reserve(self, log_id: bytes, amount: int) -> Call:
        """Add to a log's reserve; needs `approve` before."""
        return self._settlement("fundReserve", log_id, amount)

    def request_reserve_withdrawal(self, log_id: bytes, amount: int) -> Call:
        """Ask for a part of the sender's log's reserve back; 0 cancels."""
        return self._settlement("requestReserveWithdrawal", log_id, amount)

    def withdraw_reserve(self, log_id: bytes, to: bytes) -> Call:
        """Pay the requested part of the reserve out."""
        return self._settlement("withdrawReserve", log_id, to)

    def withdraw_fees(self, log_id: bytes, to: bytes) -> Call:
        """Pay the fees of the sender's log out."""
        return self._settlement("withdrawFees", log_id, to)

    def set_debit_limit(self, limit_ppm: int) -> Call:
        """Set the share of deposits that batches may take at once, and again per window."""
        return self._settlement("setDebitLimit", limit_ppm)

    def pause(self, duration_s: int) -> Call:
        """Stop batches for a while; by the guardian."""
        return self._settlement("pause", duration_s)

    def unpause(self) -> Call:
        """End a pause early; by the guardian."""
        return self._settlement("unpause")

    # Registries

    def register_node(self, payout: bytes, peer_point: bytes, peer_signature: bytes) -> Call:
        """Register or update the sender; `peer_signature` is a `PeerBinding` by the peer key."""
        x, y = _point(peer_point)
        return self._nodes("register", payout, x, y, peer_signature)

    def register_node_by_signature(
        self, registration: Signed[NodeRegistration], peer_signature: bytes
    ) -> Call:
        """Register or update the node that signed; anyone may send it."""
        words = members(registration.message)
        return self._nodes("registerBySignature", words, registration.signature, peer_signature)

    def allow_funder(self, node: bytes, funder: bytes) -> Call:
        """Let `funder` start the node's next bond, zero: nobody; by node or payout wallet."""
        return self._nodes("allowFunder", node, funder)

    def bond(self, node: bytes, amount: int) -> Call:
        """Add to a node's bond; needs `approve_bond` before. A fault costs all of it."""
        return self._nodes("bond", node, amount)

    def request_unbonding(self, node: bytes) -> Call:
        """Ask for a whole bond back; by its funder."""
        return self._nodes("requestUnbonding", node)

    def cancel_unbonding(self, node: bytes) -> Call:
        """Leave a bond where it is after all; by its funder."""
        return self._nodes("cancelUnbonding", node)

    def withdraw_bond(self, node: bytes, to: bytes) -> Call:
        """Pay a whole bond out, once the delay is over; by its funder."""
        return self._nodes("withdrawBond", node, to)

    def register_gateway(
        self, peer_point: bytes, endpoints: Sequence[str], peer_signature: bytes
    ) -> Call:
        """Register or update the sender; `peer_signature` is a `PeerBinding` by the peer key."""
        x, y = _point(peer_point)
        return self._gateways("register", x, y, list(endpoints), peer_signature)

    def register_gateway_by_signature(
        self, registration: Signed[GatewayRegistration], peer_signature: bytes
    ) -> Call:
        """Register or update the gateway that signed; anyone may send it."""
        words = members(registration.message)
        return self._gateways("registerBySignature", words, registration.signature, peer_signature)

    def open_log(self, endpoints: Sequence[str]) -> Call:
        """Open the sender's next log; `ChainClient.next_log_id` says its id beforehand."""
        return self._logs("openLog", list(endpoints))

    def set_endpoints(self, log_id: bytes, endpoints: Sequence[str]) -> Call:
        """Replace the endpoints of the sender's log."""
        return self._logs("setEndpoints", log_id, list(endpoints))

    def set_model(self, model: str, record: ModelRecord) -> Call:
        """Add a model or replace what its id means; by the registrar."""
        return self._models("setModel", model, astuple(record))

    def remove_model(self, model: str) -> Call:
        """Remove a model; by the registrar."""
        return self._models("removeModel", model)

    # Objective faults: anybody may report, and names who gets the reporter's share

    def report_completions(
        self, first: Signed[Completion], second: Signed[Completion], reward_to: bytes
    ) -> Call:
        """Two completions of one node for one award: its bond."""
        return self._report("reportCompletions", first, second, reward_to)

    def report_checkpoints(
        self, first: Signed[Checkpoint], second: Signed[Checkpoint], reward_to: bytes
    ) -> Call:
        """Two roots of one log at one size: the log's reserve."""
        return self._report("reportCheckpoints", first, second, reward_to)

    def report_receipt(self, receipt: Signed[Receipt], reward_to: bytes) -> Call:
        """A receipt whose total is not the sum of its segments: the log's reserve."""
        words = receipt_words(receipt.message)
        return self._faults("reportReceipt", words, receipt.signature, reward_to)

    def sweep(self) -> Call:
        """Pay what faults cost and no reporter got to the beneficiary."""
        return self._faults("sweep")

    def _report(
        self, function: str, first: Signed[_Pair], second: Signed[_Pair], reward_to: bytes
    ) -> Call:
        return self._faults(
            function,
            *(members(first.message), first.signature),
            *(members(second.message), second.signature),
            reward_to,
        )

    # Enclaves

    def propose_pair(self, measurement: bytes, parameters_digest: bytes) -> Call:
        """Allow code after the delay; by an administrator."""
        return self._enclaves("proposePair", measurement, parameters_digest)

    def revoke_pair(self, pair: int) -> Call:
        """Revoke code at once; by the guardian."""
        return self._enclaves("revokePair", pair)

    def propose_verifier(self, verifier: bytes) -> Call:
        """Change the attestation verifier after the delay; by an administrator."""
        return self._enclaves("proposeVerifier", verifier)

    def activate(self, verdict: Verdict, evidence: bytes) -> Call:
        """Start the next epoch of the sender's log."""
        return self._enclaves("activate", members(verdict), evidence)

    def revoke_epoch(self, log_id: bytes, epoch: int) -> Call:
        """Revoke an epoch of any log; by the guardian."""
        return self._enclaves("revokeEpoch", log_id, epoch)

    def revoke_own_epoch(self, log_id: bytes, epoch: int) -> Call:
        """Revoke an epoch of the sender's own log."""
        return self._enclaves("revokeOwnEpoch", log_id, epoch)


def members(message: Struct) -> tuple[object, ...]:
    """A signed message as the Solidity struct of the same members."""
    values = (getattr(message, name) for name in message.__struct_fields__)
    return tuple(list(v) if isinstance(v, tuple) else v for v in values)


def receipt_words(receipt: Receipt) -> tuple[object, ...]:
    """A receipt as the Solidity struct, which carries the model's key in place of its id."""
    head = tuple(
        getattr(receipt, name)
        for name in receipt.__struct_fields__
        if name not in {"model", "segments"}
    )
    model_key = keccak(receipt.model.encode())
    return (head, model_key, [members(segment) for segment in receipt.segments])


def _point(point: bytes) -> tuple[bytes, bytes]:
    return point[:32], point[32:]
