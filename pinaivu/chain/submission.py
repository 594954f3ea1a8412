"""Settling a published batch as a stranger: checked first, offline as far as possible, then sent.

A signed batch and a consistency proof are all that a submission takes, and whoever has them needs
nobody's leave. `prepare` compares them with the chain and names what is wrong before any gas is
spent. It proves less than the contract checks: rows and limits are left to the contract, which
refuses with an error of its own, and nothing here says that the rows are what receipts sum up to
(`pinaivu verify` and the audit do).

    Unsettleable (PeerFault)
    ├── AlreadySettled     this very batch, or another one of its number, is on chain
    ├── NotNext            batches before it are missing
    ├── AnotherHistory     it doesn't build on the log's last anchor
    ├── NotByTheEpoch      signed for an ended or revoked epoch, or by another key
    └── WrongProof         the consistency proof does not lead to the batch's root
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pinaivu.chain.calls import Call, Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.events import LogReader
from pinaivu.chain.records import Anchor
from pinaivu.chain.transactor import TxOutcome
from pinaivu.errors import PeerFault
from pinaivu.merkle.proofs import InvalidProof, verify_consistency
from pinaivu.messages import Batch
from pinaivu.typed_data import Signed

ProofSource = Callable[[int, int], Sequence[bytes]]
"""Old and new size to a consistency proof between them."""


class Unsettleable(PeerFault):
    """The contract would refuse this batch, now or for ever; nothing was sent."""


class AlreadySettled(Unsettleable):
    """A batch of this number is on chain."""


class NotNext(Unsettleable):
    """Earlier batches have to be settled first."""


class AnotherHistory(Unsettleable):
    """The batch doesn't extend what is anchored."""


class NotByTheEpoch(Unsettleable):
    """The log's active epoch didn't sign it."""


class WrongProof(Unsettleable):
    """The proof that came with it, or was made from a copy of the log, does not fit the batch."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch that can be sent, with all that goes with it."""

    batch: Signed[Batch]
    proof: tuple[bytes, ...]
    last: Anchor

    def call(self, calls: Calls) -> Call:
        """What to send."""
        return calls.settle(self.batch, self.proof, self.last)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A payer that had too little: what the reserve lent, and what nobody paid."""

    payer: bytes
    covered: int
    uncovered: int


def prepare(client: ChainClient, batch: Signed[Batch], proof: ProofSource) -> Submission:
    """Check `batch` against the chain's head and find its proof; else `Unsettleable`."""
    said = batch.message
    last = client.anchor(said.log_id)
    _require_next(client, batch, last)
    if (said.prev_size, said.prev_root) != (last.new_size, last.new_root):
        raise AnotherHistory(
            f"batch {said.sequence} builds on {said.prev_size} leaves with root"
            f" 0x{said.prev_root.hex()}, but batch {last.sequence} anchored {last.new_size} with"
            f" root 0x{last.new_root.hex()}; the chain will never take it"
        )
    _require_epoch(client, batch)
    hashes = tuple(proof(said.prev_size, said.new_size))
    try:
        verify_consistency(said.prev_size, said.prev_root, said.new_size, said.new_root, hashes)
    except InvalidProof as error:
        raise WrongProof(
            f"the consistency proof does not fit batch {said.sequence} ({error}); get another copy"
            " of it, or make the proof from the log's tiles"
        ) from error
    return Submission(batch, hashes, last)


def _require_next(client: ChainClient, batch: Signed[Batch], last: Anchor) -> None:
    said = batch.message
    if said.sequence <= last.sequence:
        there = client.anchor(said.log_id, said.sequence)
        same = there.batch_digest == batch.digest(client.deployment.domain)
        which = "this batch" if same else "another batch of this number"
        raise AlreadySettled(
            f"batch {said.sequence} is settled: {which} is on chain"
            f" ({last.sequence} is the log's last); nothing to do"
        )
    if said.sequence > last.sequence + 1:
        missing = f"{last.sequence + 1} to {said.sequence - 1}"
        raise NotNext(
            f"batch {said.sequence} can't be settled yet: the chain has the log's first"
            f" {last.sequence}; get and submit {missing} before it"
        )


def _require_epoch(client: ChainClient, batch: Signed[Batch]) -> None:
    said = batch.message
    active = client.active_epoch(said.log_id)
    if active is None:
        raise NotByTheEpoch(
            f"log 0x{said.log_id.hex()} has no valid epoch now (revoked, expired or never"
            " activated); its operator must activate one and sign the batch anew"
        )
    if said.epoch != active.number:
        raise NotByTheEpoch(
            f"batch {said.sequence} was signed for epoch {said.epoch}, the active one is"
            f" {active.number}; its key must sign these leaves anew"
        )
    signer = batch.signer(client.deployment.domain)
    if signer != active.key:
        raise NotByTheEpoch(
            f"batch {said.sequence} was signed by 0x{signer.hex()}, epoch {said.epoch} has key"
            f" 0x{active.key.hex()}; get an unaltered copy"
        )


def shortfalls(client: ChainClient, outcome: TxOutcome) -> list[Shortfall]:
    """The payers of a settled batch that had too little."""
    events = LogReader.of(client.rpc, client.deployment).decode(outcome.logs)
    return [
        Shortfall(*(event.arguments[name] for name in ("payer", "covered", "uncovered")))
        for event in events
        if event.name == "PayerShort"
    ]
