"""Builds the public part of a bundle from the store and the tree: everything but the holder's copy.

Nothing here decides anything; whoever opens the bundle checks it again. Proofs are against the
newest checkpoint and, once there is one, the batch that settles the leaf.
"""

import json
from base64 import b64encode
from functools import lru_cache
from typing import Any

from sqlmodel import Session, col, select

from coordinator.archive import published_transcript
from coordinator.log import Log
from pinaivu.auction.transcript import Header
from pinaivu.bundles import pack
from pinaivu.codes import Role
from pinaivu.commitments import party_of_account
from pinaivu.encoding import from_hex, to_hex
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import (
    Award,
    Batch,
    Checkpoint,
    Completion,
    Delivery,
    EpochStart,
    Failure,
    Grant,
    Job,
    Receipt,
)
from pinaivu.settlement import Netting, Statement, net
from pinaivu.store.coordinator import (
    AwardRow,
    BatchRow,
    CheckpointRow,
    EpochRow,
    EvidenceRow,
    JobRow,
    LeafRow,
    TranscriptRow,
)
from pinaivu.store.database import Database
from pinaivu.typed_data import Message, signed_from_bytes

Json = dict[str, Any]


class Bundler:
    """Answers for one log; safe to call from worker threads."""

    def __init__(self, log: Log, database: Database, cards: dict[bytes, Json]) -> None:
        self._log = log
        self._database = database
        self._cards = cards
        self._netting = lru_cache(maxsize=16)(self._compute_netting)

    def bundle(self, gateway: bytes, job_id: bytes) -> bytes | None:
        """The packed bundle of a receipted job with a released checkpoint over it, or None."""
        with self._database.read() as session:
            leaf = session.exec(
                select(LeafRow).where(LeafRow.gateway == gateway, LeafRow.job_id == job_id)
            ).first()
            checkpoint = session.exec(
                select(CheckpointRow).order_by(col(CheckpointRow.size).desc())
            ).first()
            if leaf is None or checkpoint is None or checkpoint.size <= leaf.position:
                return None
            return pack(self._document(session, leaf, checkpoint))

    def _document(self, session: Session, leaf: LeafRow, checkpoint: CheckpointRow) -> Json:
        domain = self._log.domain
        receipt = signed_from_bytes(Receipt, leaf.signed)
        job_row = session.get_one(JobRow, (leaf.gateway, leaf.job_id))
        awards = _awards(session, job_row)
        digests = [row.digest for row in awards]
        delivery = session.get(EvidenceRow, ("Delivery", receipt.message.job_digest))
        transcript = session.get(TranscriptRow, receipt.message.bids_root)
        batch = _batch_over(session, leaf.position)
        document: Json = {
            "version": 1,
            "chain": {"chain_id": domain.chain_id, "settlement": to_hex(domain.settlement)},
            "receipt": receipt.to_json(),
            "grant": signed_from_bytes(Grant, job_row.grant).to_json(),
            "job": signed_from_bytes(Job, job_row.job).to_json(),
            "awards": [signed_from_bytes(Award, row.award).to_json() for row in awards],
            "failures": _evidence(session, "Failure", Failure, digests),
            "completions": _evidence(session, "Completion", Completion, digests),
            "log": self._log_part(session, leaf, receipt.message.epoch, checkpoint),
        }
        named = {receipt.message.epoch}
        named.add(signed_from_bytes(Checkpoint, checkpoint.checkpoint).message.epoch)
        named |= {signed_from_bytes(Award, row.award).message.epoch for row in awards}
        if delivery:
            document["delivery"] = signed_from_bytes(Delivery, delivery.signed).to_json()
        if transcript:
            document["transcript"] = published_transcript(session, transcript)
            header = from_hex(document["transcript"]["header"])
            named.add(Header.from_bytes(header).epoch)
        if batch:
            document["batch"] = self._batch_part(batch, receipt.message, leaf, checkpoint.size)
            named.add(signed_from_bytes(Batch, batch.batch).message.epoch)
        if receipt.message.fingerprint in self._cards:
            document["model_card"] = self._cards[receipt.message.fingerprint]
        document["epochs"] = _epochs(session, named)
        return document

    def _log_part(
        self, session: Session, leaf: LeafRow, epoch: int, checkpoint: CheckpointRow
    ) -> Json:
        tree, size = self._log.tree, checkpoint.size
        signed = signed_from_bytes(Checkpoint, checkpoint.checkpoint)
        part: Json = {
            "index": leaf.position,
            "inclusion": _hexes(tree.inclusion_proof(leaf.position, size)),
            "checkpoint": signed.to_json(),
            "note": checkpoint.note,
            "epoch_start": self._epoch_start(session, epoch, size),
        }
        following = min((e for e in self._log.epoch_starts if e > epoch), default=None)
        if following is not None and self._log.epoch_starts[following] < size:
            part["next_epoch_start"] = self._epoch_start(session, following, size)
        return part

    def _epoch_start(self, session: Session, epoch: int, size: int) -> Json:
        index = self._log.epoch_starts[epoch]
        row = session.get_one(LeafRow, index)
        return signed_from_bytes(EpochStart, row.signed).to_json() | {
            "inclusion": _hexes(self._log.tree.inclusion_proof(index, size))
        }

    def _batch_part(self, row: BatchRow, receipt: Receipt, leaf: LeafRow, size: int) -> Json:
        signed = signed_from_bytes(Batch, row.batch)
        batch = signed.message
        statements = self._netting(batch.prev_size, batch.new_size).statements
        tree = Tree(leaf_hash(entry.to_bytes()) for entry in statements)
        smaller, larger = sorted((size, batch.new_size))
        return {
            "batch": signed.to_json(),
            "inclusion": _hexes(self._log.tree.inclusion_proof(leaf.position, batch.new_size)),
            "consistency": _hexes(self._log.tree.consistency_proof(smaller, larger)),
            "statements": [
                {
                    "entry": to_hex(entry.to_bytes()),
                    "index": index,
                    "inclusion": _hexes(tree.inclusion_proof(index, len(statements))),
                }
                for index, entry in enumerate(statements)
                if _concerns(entry, receipt)
            ],
        }

    def _compute_netting(self, prev_size: int, new_size: int) -> Netting:
        statement = (
            select(LeafRow)
            .where(col(LeafRow.position) >= prev_size, col(LeafRow.position) < new_size)
            .where(LeafRow.kind == "Receipt")
            .order_by(col(LeafRow.position))
        )
        with self._database.read() as session:
            rows = session.exec(statement).all()
        return net(signed_from_bytes(Receipt, row.signed).message for row in rows)


def _epochs(session: Session, numbers: set[int]) -> list[Json]:
    rows = [session.get_one(EpochRow, number) for number in sorted(numbers)]
    return [
        {
            "number": row.number,
            "manifest": json.loads(row.manifest),
            "parameters": json.loads(row.parameters),
            "document": b64encode(row.document).decode(),
            "verdicts": [],
        }
        for row in rows
    ]


def _awards(session: Session, job: JobRow) -> list[AwardRow]:
    statement = (
        select(AwardRow)
        .where(AwardRow.gateway == job.gateway, AwardRow.job_id == job.job_id)
        .order_by(col(AwardRow.rank))
    )
    return list(session.exec(statement))


def _evidence(session: Session, kind: str, cls: type[Message], digests: list[bytes]) -> list[Json]:
    rows = (session.get(EvidenceRow, (kind, digest)) for digest in digests)
    return [signed_from_bytes(cls, row.signed).to_json() for row in rows if row]


def _batch_over(session: Session, position: int) -> BatchRow | None:
    statement = (
        select(BatchRow).where(col(BatchRow.new_size) > position).order_by(col(BatchRow.sequence))
    )
    return session.exec(statement).first()


def _concerns(entry: Statement, receipt: Receipt) -> bool:
    nodes = {segment.node for segment in receipt.segments if segment.rank}
    if entry.role == Role.ACCOUNT:
        return any(receipt.account) and entry.party == party_of_account(
            receipt.payer, receipt.account
        )
    address = entry.party[12:]
    return address in nodes if entry.role == Role.NODE else address == receipt.payer


def _hexes(hashes: list[bytes]) -> list[str]:
    return [to_hex(value) for value in hashes]
