"""Typed reads of one deployment on one chain.

Every read takes the number of the block it is about; None means the head as the endpoint sees it,
which may still be reorganised away. For what must not change any more read at `final_block()`.
Methods that ask for several things pin them to one block themselves. Nothing is cached.

All methods raise `ChainUnavailable` when the endpoint gives no usable answer. None of them proves
anything: an endpoint can lie. `pinaivu verify` checks storage proofs instead.
"""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, Final

from pinaivu.chain.abi import load
from pinaivu.chain.calls import receipt_words
from pinaivu.chain.deployment import CONTRACTS, Deployment
from pinaivu.chain.errors import ChainUnavailable, NotDeployed, Reverted
from pinaivu.chain.events import LogReader
from pinaivu.chain.records import (
    NO_LOG,
    Anchor,
    Block,
    EpochRecord,
    GatewayRecord,
    LogState,
    ModelRecord,
    NodeBond,
    NodeCredit,
    NodeRecord,
    PairRecord,
    PayerState,
    Times,
)
from pinaivu.chain.rpc import JsonRpc, require_chain
from pinaivu.chain.views import View, read, read_many, view
from pinaivu.chain.words import from_hex, quantity, to_hex
from pinaivu.keccak import keccak
from pinaivu.messages import Receipt

_PERMIT_TYPE: Final = keccak(
    b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
_NO_EPOCH: Final = {"NoActiveEpoch", "EpochExpired", "UnknownEpoch", "PairIsRevoked"}


class ChainClient:
    """Reads through `rpc` what the contracts of `deployment` hold.

    `finality_blocks` is how far behind the head a block counts as final.
    """

    def __init__(self, rpc: JsonRpc, deployment: Deployment, *, finality_blocks: int = 0) -> None:
        self.rpc = rpc
        self.deployment = deployment
        self.finality_blocks = finality_blocks

    def check(self) -> None:
        """Raise `WrongChain` or `NotDeployed` unless this is the deployment's chain and code."""
        require_chain(self.rpc, self.deployment.chain_id)
        addresses = self.deployment.addresses()
        codes = self.rpc.batch([("eth_getCode", [to_hex(a), "latest"]) for a in addresses.values()])
        for (name, address), code in zip(addresses.items(), codes, strict=True):
            if not from_hex(code):
                raise NotDeployed(name, address, self.deployment.chain_id)
        (separator,) = self._read(self._view("settlement", "domainSeparator"))
        if separator != self.deployment.domain.separator:
            raise NotDeployed("Settlement", self.deployment.settlement, self.deployment.chain_id)

    # Blocks

    def block(self, number: int | None = None) -> Block:
        """A block's header; `ChainUnavailable` where the endpoint doesn't have it."""
        at = "latest" if number is None else hex(number)
        raw = self.rpc.call("eth_getBlockByNumber", at, False)
        if not raw:
            raise ChainUnavailable(f"{self.rpc.endpoint} has no block {at}")
        return Block(
            number=quantity(raw["number"]),
            hash=from_hex(raw["hash"]),
            parent_hash=from_hex(raw["parentHash"]),
            time_ms=_ms(quantity(raw["timestamp"])),
        )

    def head(self) -> int:
        """Number of the latest block."""
        return quantity(self.rpc.call("eth_blockNumber"))

    def final_block(self) -> int:
        """Number of the latest final block."""
        return max(0, self.head() - self.finality_blocks)

    # Payers

    def payer(self, payer: bytes, block: int | None = None) -> PayerState:
        """A payer's state; all zero for one the contract has never seen."""
        return self.payers([payer], block)[0]

    def payers(self, payers: Sequence[bytes], block: int | None = None) -> list[PayerState]:
        """The state of many payers at one block."""
        at = self.head() if block is None else block
        chosen = [c for (c,) in self._each("settlement", "payerOf", [(p,) for p in payers], at)]
        keys = [(choice[0], payer) for choice, payer in zip(chosen, payers, strict=True)]
        accounts = self._each("settlement", "accountOf", keys, at)
        debts = self._each("settlement", "debtOf", keys, at)
        return [
            PayerState(
                payer=payer,
                log_id=log_id,
                balance=balance,
                requested=requested,
                withdrawable_at_ms=_ms(available_at),
                debt=debt,
                next_log_id=next_log_id if movable_at else NO_LOG,
                movable_at_ms=_ms(movable_at),
                grant_epoch=grant_epoch,
            )
            for payer, (log_id, next_log_id, movable_at, grant_epoch), (account,), (debt,) in zip(
                payers, chosen, accounts, debts, strict=True
            )
            for balance, requested, available_at in [account]
        ]

    def token_balance(self, owner: bytes, block: int | None = None) -> int:
        """Settlement tokens that `owner` holds, in base units."""
        asked = view("TestToken", self.deployment.token, "balanceOf", owner)
        (amount,) = self._read(asked, block)
        return int(amount)

    def allowance(self, owner: bytes) -> int:
        """Settlement tokens of `owner` that the settlement contract may take, in base units."""
        spender = self.deployment.settlement
        asked = view("TestToken", self.deployment.token, "allowance", owner, spender)
        (amount,) = self._read(asked)
        return int(amount)

    def permit_digest(self, owner: bytes, amount: int, deadline_s: int) -> bytes:
        """What `owner` signs for `Calls.deposit_with_permit` (ERC-2612), by the next nonce.

        The token says its own domain, whatever name and version are in it. `Reverted` by one that
        says none.
        """
        token = self.deployment.token
        (separator,), (nonce,) = read_many(
            self.rpc,
            [
                view("TestToken", token, "DOMAIN_SEPARATOR"),
                view("TestToken", token, "nonces", owner),
            ],
        )
        parties = (party.rjust(32, b"\0") for party in (owner, self.deployment.settlement))
        numbers = (_word(number) for number in (amount, nonce, deadline_s))
        struct = keccak(b"".join((_PERMIT_TYPE, *parties, *numbers)))
        return keccak(b"\x19\x01" + separator + struct)

    # Nodes, gateways, models

    def node(self, node: bytes, block: int | None = None) -> NodeRecord | None:
        """A node's record; None if it isn't registered."""
        return self.nodes([node], block)[0]

    def nodes(self, nodes: Sequence[bytes], block: int | None = None) -> list[NodeRecord | None]:
        """The records of many nodes at one block."""
        found = self._each("node_registry", "nodeOf", [(node,) for node in nodes], block)
        return [_node(node, raw) for node, (raw,) in zip(nodes, found, strict=True)]

    def node_credits(self, nodes: Sequence[bytes], block: int | None = None) -> list[NodeCredit]:
        """The credit of many nodes at one block."""
        found = self._each("settlement", "creditOf", [(node,) for node in nodes], block)
        return [NodeCredit(credit, lifetime) for credit, lifetime in found]

    def bond_of(self, node: bytes, block: int | None = None) -> NodeBond:
        """A node's bond; zeros if it has none."""
        return self.bonds([node], block)[0]

    def bonds(self, nodes: Sequence[bytes], block: int | None = None) -> list[NodeBond]:
        """The bonds of many nodes at one block."""
        at = self.head() if block is None else block
        keys = [(node,) for node in nodes]
        held = self._each("node_registry", "bondOf", keys, at)
        allowed = self._each("node_registry", "allowedFunderOf", keys, at)
        return [
            NodeBond(node, amount, funder, _ms(unbonding_at), next_funder)
            for node, (amount, funder, unbonding_at), (next_funder,) in zip(
                nodes, held, allowed, strict=True
            )
        ]

    def gateway(self, gateway: bytes, block: int | None = None) -> GatewayRecord | None:
        """A gateway's record; None if it isn't registered."""
        (raw,) = self._read(self._view("gateway_registry", "gatewayOf", gateway), block)
        x, y, registered_at, endpoints = raw
        if not registered_at:
            return None
        return GatewayRecord(gateway, x + y, _ms(registered_at), tuple(endpoints))

    def registration_nonce(self, registry: str, owner: bytes, block: int | None = None) -> int:
        """Nonce of the next relayed registration in ``node_registry`` or ``gateway_registry``."""
        return int(self._read(self._view(registry, "nonceOf", owner), block)[0])

    def model(self, model: str, block: int | None = None) -> ModelRecord | None:
        """What a model id means; None if it is not in the registry."""
        return self.model_by_key(keccak(model.encode()), block)

    def model_by_key(self, model_key: bytes, block: int | None = None) -> ModelRecord | None:
        """`model`, by the hash of the id."""
        found = self._unless({"UnknownModel"}, "model_registry", "modelOf", (model_key,), block)
        return ModelRecord(*found[0]) if found else None

    # Enclaves

    def active_epoch(self, log_id: bytes, block: int | None = None) -> EpochRecord | None:
        """The epoch whose key may sign for a log; None if it has none that is valid."""
        at = self.head() if block is None else block
        found = self._unless(_NO_EPOCH, "enclave_registry", "activeEpochOf", (log_id,), at)
        return self.epoch(log_id, int(found[1]), at) if found else None

    def epoch(self, log_id: bytes, number: int, block: int | None = None) -> EpochRecord | None:
        """An epoch's record, valid still or not; None if the log had none of this number."""
        found = self._unless(
            {"UnknownEpoch"}, "enclave_registry", "epochOf", (log_id, number), block
        )
        return _epoch(log_id, number, found[0]) if found else None

    def epoch_count(self, log_id: bytes, block: int | None = None) -> int:
        """How many epochs a log has had; they count from 1."""
        return int(self._read(self._view("enclave_registry", "epochCountOf", log_id), block)[0])

    def pair(
        self, measurement: bytes, parameters_digest: bytes, block: int | None = None
    ) -> PairRecord | None:
        """The latest proposal of this code; None if it was never proposed."""
        at = self.head() if block is None else block
        asked = self._view("enclave_registry", "pairIndexOf", measurement, parameters_digest)
        (index,) = self._read(asked, at)
        return self.pair_at(index, at) if index else None

    def pair_at(self, index: int, block: int | None = None) -> PairRecord:
        """A proposal of code by its index."""
        (raw,) = self._read(self._view("enclave_registry", "pairOf", index), block)
        measurement, parameters_digest, allowed_from, revoked_at = raw
        return PairRecord(index, measurement, parameters_digest, _ms(allowed_from), _ms(revoked_at))

    def verifier(self, block: int | None = None) -> tuple[bytes, str]:
        """The attestation verifier in force, and what it says a passed check means."""
        (address,) = self._read(self._view("enclave_registry", "verifier"), block)
        (description,) = self._read(
            view("SimulatedAttestationVerifier", address, "description"), block
        )
        return address, description

    # Logs

    def log_operator(self, log_id: bytes, block: int | None = None) -> bytes:
        """A log's operator; the zero address if it was not opened."""
        return bytes(self._read(self._view("receipt_log", "operatorOf", log_id), block)[0])

    def next_log_id(self, operator: bytes, block: int | None = None) -> bytes:
        """The id that `Calls.open_log` would give `operator`'s next log."""
        at = self.head() if block is None else block
        (number,) = self._read(self._view("receipt_log", "logCountOf", operator), at)
        return bytes(self._read(self._view("receipt_log", "logIdOf", operator, number), at)[0])

    def log_endpoints(self, log_id: bytes, block: int | None = None) -> tuple[str, ...]:
        """Where a log is served, as its operator says."""
        (endpoints,) = self._read(self._view("receipt_log", "endpointsOf", log_id), block)
        return tuple(endpoints)

    def log_state(self, log_id: bytes, block: int | None = None) -> LogState:
        """A log's ledger; zeros for one that is not open."""
        (raw,) = self._read(self._view("settlement", "logStateOf", log_id), block)
        sequence, assigned, drained_at, reserve, fees = raw
        return LogState(sequence, assigned, _ms(drained_at), reserve, fees)

    def debitable_now(self, log_id: bytes, block: int | None = None) -> int:
        """Base units that the limiter still lets a log's batches take from deposits."""
        return int(self._read(self._view("settlement", "debitableNow", log_id), block)[0])

    def anchor(
        self, log_id: bytes, sequence: int | None = None, block: int | None = None
    ) -> Anchor:
        """The anchor of a batch, by default the last one; `Anchor.none` before the first.

        The words come from the batch's event and are taken only if they hash to what the contract
        holds; `ChainUnavailable` where the endpoint gives no such event.
        """
        at = self.head() if block is None else block
        wanted = self.log_state(log_id, at).sequence if sequence is None else sequence
        if not wanted:
            return Anchor.none(log_id)
        (word,) = self._read(self._view("settlement", "anchorOf", log_id, wanted), at)
        topics = (load("Settlement").event("BatchSettled").topic, log_id, _word(wanted))
        for event in self._logs().read(self.deployment.block, at, topics=topics):
            said = event.arguments
            numbers = (wanted, said["prevSize"], said["newSize"])
            anchor = Anchor(log_id, *numbers, said["newRoot"], said["batchDigest"])
            if anchor.word == word:
                return anchor
        raise ChainUnavailable(
            f"{self.rpc.endpoint} has no event for batch {wanted} of log 0x{log_id.hex()}; use an"
            f" endpoint that keeps logs since block {self.deployment.block}"
        )

    def require_settled(
        self,
        receipt: Receipt,
        index: int,
        inclusion_proof: Sequence[bytes],
        anchor: Anchor,
        block: int | None = None,
    ) -> None:
        """Have the contract check that `anchor`'s batch settled `receipt`, leaf `index` of the log.

        `Reverted` names what doesn't fit. Who signed the receipt is not checked.
        """
        words, proof = receipt_words(receipt), list(inclusion_proof)
        asked = self._view("receipt_log", "settledIn", words, index, proof, astuple(anchor))
        self._read(asked, block)

    def times(self, block: int | None = None) -> Times:
        """The deployment's durations."""
        (raw,) = self._read(self._view("settlement", "times"), block)
        return Times(*(_ms(seconds) for seconds in raw))

    def _logs(self) -> LogReader:
        return LogReader(self.rpc, {self.deployment.settlement: load("Settlement")})

    def _view(self, contract: str, function: str, *arguments: object) -> View:
        return view(CONTRACTS[contract], getattr(self.deployment, contract), function, *arguments)

    def _read(self, asked: View, block: int | None = None) -> tuple[Any, ...]:
        return read(self.rpc, asked, block)

    def _each(
        self,
        contract: str,
        function: str,
        arguments: Sequence[tuple[object, ...]],
        block: int | None,
    ) -> list[tuple[Any, ...]]:
        """One function for many arguments, all at one block."""
        at = self.head() if block is None else block
        asked = [self._view(contract, function, *given) for given in arguments]
        return read_many(self.rpc, asked, at)

    def _unless(
        self,
        errors: set[str],
        contract: str,
        function: str,
        arguments: tuple[object, ...],
        block: int | None,
    ) -> tuple[Any, ...] | None:
        """A read that answers "there is none" by reverting with one of `errors`."""
        try:
            return self._read(self._view(contract, function, *arguments), block)
        except Reverted as reverted:
            if reverted.name in errors:
                return None
            raise


def _node(node: bytes, raw: Sequence[Any]) -> NodeRecord | None:
    payout, next_payout, changes_at, registered_at, x, y = raw
    if not registered_at:
        return None
    return NodeRecord(node, payout, next_payout, _ms(changes_at), _ms(registered_at), x + y)


def _epoch(log_id: bytes, number: int, raw: Sequence[Any]) -> EpochRecord:
    (
        key,
        activated_at,
        expires_at,
        pair,
        revoked_at,
        block_number,
        document_ms,
        manifest,
        payload,
    ) = raw
    return EpochRecord(
        log_id=log_id,
        number=number,
        key=key,
        activated_at_ms=_ms(activated_at),
        expires_at_ms=_ms(expires_at),
        pair=pair,
        revoked_at_ms=_ms(revoked_at),
        block_number=block_number,
        document_ms=document_ms,
        manifest_digest=manifest,
        payload_digest=payload,
    )


def _ms(seconds: int) -> int:
    return seconds * 1000


def _word(number: int) -> bytes:
    return number.to_bytes(32)
