"""How open jobs, awards and transcripts are written to the store, and read back at boot.

What is read back lay with the host, who is not trusted: every signature is checked again, and that
the parts belong together. A job that the host left out is not noticed here.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from sqlalchemy.exc import NoResultFound
from sqlmodel import Session, select

from coordinator.auctioneer import Held as HeldAuction
from coordinator.docket import Awarded, OpenJob
from coordinator.errors import LogDiverged
from coordinator.evidence import check_completion, check_delivery, check_failure
from pinaivu.auction.transcript import CallEntry, Header, bids_root
from pinaivu.encoding import from_hex, to_hex
from pinaivu.errors import PinaivuError
from pinaivu.messages import Award, Completion, Delivery, Failure, Grant, Job
from pinaivu.receipts import Held, PassedOver
from pinaivu.store.coordinator import AwardRow, EvidenceRow, JobRow, TranscriptRow
from pinaivu.typed_data import Domain, Signed, signed_from_bytes

_PASSED_BYTES = 22  # node20 ‖ u16 position
E = TypeVar("E", Completion, Failure, Delivery)


Values = dict[str, Any]
"""Columns of a row."""


def job_values(job: OpenJob) -> Values:
    """A `JobRow` of the job as it stands, its awards apart."""
    gateway, job_id = job.key
    return Values(
        gateway=gateway,
        job_id=job_id,
        job=job.job.to_bytes(),
        grant=job.grant.to_bytes(),
        nonce=job.held.nonce,
        bids_root=job.held.bids_root,
        received_ms=job.received_ms,
        unserved_reason=int(job.unserved_reason),
        passed_over=passed_over(job),
    )


def passed_over(job: OpenJob) -> bytes:
    """The nodes on the job's line that got no award, each with its place."""
    return b"".join(
        entry.node + position.to_bytes(2)
        for position, entry in enumerate(job.line)
        if isinstance(entry, PassedOver)
    )


def award_values(job: OpenJob, awarded: Awarded) -> Values:
    """An `AwardRow` of one award of the job."""
    gateway, job_id = job.key
    return Values(
        digest=awarded.digest,
        gateway=gateway,
        job_id=job_id,
        rank=awarded.signed.message.rank,
        award=awarded.signed.to_bytes(),
    )


def transcript_values(held: HeldAuction) -> Values:
    """A `TranscriptRow` of a finished auction; its book is filed apart (`coordinator.archive`).

    Bids as they travelled: writing them out as published is for whoever asks.
    """
    document = {
        "header": to_hex(held.header.to_bytes()),
        "calls": [
            {"entry": to_hex(entry.to_bytes())} | ({"bid": to_hex(bid.to_bytes())} if bid else {})
            for entry, bid in zip(held.calls, held.bids, strict=True)
        ],
    }
    return Values(
        bids_root=held.bids_root,
        document=msgspec.json.encode(document).decode(),
        book_root=held.header.book_root,
    )


def open_jobs(session: Session, domain: Domain, signers: Mapping[int, bytes]) -> Iterator[OpenJob]:
    """Jobs accepted but not receipted, as they stood; no further rank can be awarded to them.

    `signers` are this log's keys by epoch, from the chain; `LogDiverged` where a row is false.
    """
    for row in session.exec(select(JobRow).where(JobRow.closed == False)):  # noqa: E712 - SQL
        try:
            yield _read_job(session, domain, signers, row)
        except (PinaivuError, KeyError, NoResultFound) as error:
            raise LogDiverged(
                f"the stored job {row.job_id.hex()} does not hold: {error}. Restore the database "
                "from a copy"
            ) from error


def _read_job(
    session: Session, domain: Domain, signers: Mapping[int, bytes], row: JobRow
) -> OpenJob:
    job, grant = signed_from_bytes(Job, row.job), signed_from_bytes(Grant, row.grant)
    job_digest = job.require(domain, row.gateway)
    if job.message.grant_digest != grant.require(domain, grant.message.payer):
        raise LogDiverged("it names another grant")
    header = _header(session, row.bids_root)
    if (header.job_digest, header.nonce) != (job_digest, row.nonce):
        raise LogDiverged("its transcript is another job's")
    delivery = session.get(EvidenceRow, ("Delivery", job_digest))
    found = OpenJob(
        job=job,
        job_digest=job_digest,
        grant=grant,
        received_ms=row.received_ms,
        reserve_units=header.reserve,
        held=Held(
            fingerprint=header.fingerprint,
            nonce=row.nonce,
            bids_root=row.bids_root,
            bids=header.eligible,
        ),
        delivered_ms=delivery.arrived_ms if delivery else 0,
        unserved_reason=row.unserved_reason,
    )
    found.line.extend(_read_awards(session, domain, signers, found))
    if delivery:
        found.delivery = signed_from_bytes(Delivery, delivery.signed)
        check_delivery(found, found.delivery, domain)
    for start in range(0, len(row.passed_over), _PASSED_BYTES):
        entry = row.passed_over[start : start + _PASSED_BYTES]
        found.line.insert(int.from_bytes(entry[20:]), PassedOver(entry[:20]))
    return found


def _header(session: Session, root: bytes) -> Header:
    """The header of a stored transcript, which must have this root."""
    document = json.loads(session.get_one(TranscriptRow, root).document)
    header = Header.from_bytes(from_hex(document["header"]))
    calls = [CallEntry.from_bytes(from_hex(call["entry"])) for call in document["calls"]]
    if bids_root(header, calls) != root:
        raise LogDiverged("its transcript does not give its root")
    return header


def _read_awards(
    session: Session, domain: Domain, signers: Mapping[int, bytes], job: OpenJob
) -> list[Awarded]:
    gateway, job_id = job.key
    statement = (
        select(AwardRow)
        .where(AwardRow.gateway == gateway, AwardRow.job_id == job_id)
        .order_by(AwardRow.rank)  # type: ignore[arg-type]
    )
    awards = []
    for row in session.exec(statement):
        signed = signed_from_bytes(Award, row.award)
        entry = Awarded(signed, signed.require(domain, signers[signed.message.epoch]))
        terms = (signed.message.job_digest, signed.message.bids_root)
        if entry.digest != row.digest or terms != (job.job_digest, job.held.bids_root):
            raise LogDiverged("an award belongs to another job")
        entry.completion = _evidence(session, Completion, row.digest)
        if entry.completion:
            check_completion(job, entry, entry.completion, domain)
        entry.failure = _evidence(session, Failure, row.digest)
        if entry.failure:
            check_failure(job, entry, entry.failure, domain)
        awards.append(entry)
    return awards


def _evidence(session: Session, cls: type[E], about: bytes) -> Signed[E] | None:
    row = session.get(EvidenceRow, (cls.__name__, about))
    return signed_from_bytes(cls, row.signed) if row else None
