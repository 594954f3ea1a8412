"""How open jobs, awards and transcripts are written to the store, and read back at boot."""

import json
from collections.abc import Iterable

from sqlmodel import Session, select

from coordinator.auctioneer import Held as HeldAuction
from coordinator.docket import Awarded, OpenJob
from pinaivu.auction.replay import transcript_document
from pinaivu.auction.transcript import Header
from pinaivu.encoding import from_hex
from pinaivu.messages import Award, Completion, Delivery, Failure, Grant, Job
from pinaivu.receipts import Held, PassedOver
from pinaivu.store.coordinator import AwardRow, EvidenceRow, JobRow, TranscriptRow
from pinaivu.typed_data import Domain, signed_from_bytes

_PASSED_BYTES = 21  # node20 ‖ u8 position


def job_row(job: OpenJob) -> JobRow:
    """The job as it stands, its awards apart."""
    gateway, job_id = job.key
    passed = b"".join(
        entry.node + bytes((position,))
        for position, entry in enumerate(job.line)
        if isinstance(entry, PassedOver)
    )
    return JobRow(
        gateway=gateway,
        job_id=job_id,
        job=job.job.to_bytes(),
        grant=job.grant.to_bytes(),
        nonce=job.held.nonce,
        bids_root=job.held.bids_root,
        received_ms=job.received_ms,
        unserved_reason=int(job.unserved_reason),
        passed_over=passed,
    )


def award_row(job: OpenJob, awarded: Awarded) -> AwardRow:
    """One award of the job."""
    gateway, job_id = job.key
    return AwardRow(
        digest=awarded.digest,
        gateway=gateway,
        job_id=job_id,
        rank=awarded.signed.message.rank,
        award=awarded.signed.to_bytes(),
    )


def transcript_row(held: HeldAuction) -> TranscriptRow:
    """The published transcript of a finished auction."""
    rows = [
        (number, slot.entrant.row, slot.signed) for number, slot in enumerate(held.slots) if slot
    ]
    document = transcript_document(held.header, list(zip(held.calls, held.bids, strict=True)), rows)
    return TranscriptRow(
        bids_root=held.bids_root, document=json.dumps(document, separators=(",", ":"))
    )


def open_jobs(session: Session, domain: Domain) -> Iterable[OpenJob]:
    """Jobs accepted but not receipted, as they stood; no further rank can be awarded to them."""
    for row in session.exec(select(JobRow).where(JobRow.closed == False)):  # noqa: E712 - SQL
        yield _read_job(session, domain, row)


def _read_job(session: Session, domain: Domain, row: JobRow) -> OpenJob:
    job = signed_from_bytes(Job, row.job)
    header = _header(session, row.bids_root)
    job_digest = job.digest(domain)
    delivery = session.get(EvidenceRow, ("Delivery", job_digest))
    found = OpenJob(
        job=job,
        job_digest=job_digest,
        grant=signed_from_bytes(Grant, row.grant),
        received_ms=row.received_ms,
        reserve_units=header.reserve,
        held=Held(
            fingerprint=header.fingerprint,
            nonce=row.nonce,
            bids_root=row.bids_root,
            bids=header.eligible,
        ),
        delivery=signed_from_bytes(Delivery, delivery.signed) if delivery else None,
        delivered_ms=delivery.arrived_ms if delivery else 0,
        unserved_reason=row.unserved_reason,
    )
    found.line.extend(_read_awards(session, row))
    for start in range(0, len(row.passed_over), _PASSED_BYTES):
        entry = row.passed_over[start : start + _PASSED_BYTES]
        found.line.insert(entry[20], PassedOver(entry[:20]))
    return found


def _header(session: Session, bids_root: bytes) -> Header:
    document = json.loads(session.get_one(TranscriptRow, bids_root).document)
    return Header.from_bytes(from_hex(document["header"]))


def _read_awards(session: Session, row: JobRow) -> list[Awarded]:
    statement = (
        select(AwardRow)
        .where(AwardRow.gateway == row.gateway, AwardRow.job_id == row.job_id)
        .order_by(AwardRow.rank)  # type: ignore[arg-type]
    )
    awards = []
    for found in session.exec(statement):
        completion = session.get(EvidenceRow, ("Completion", found.digest))
        failure = session.get(EvidenceRow, ("Failure", found.digest))
        awards.append(
            Awarded(
                signed_from_bytes(Award, found.award),
                found.digest,
                signed_from_bytes(Completion, completion.signed) if completion else None,
                signed_from_bytes(Failure, failure.signed) if failure else None,
            )
        )
    return awards
