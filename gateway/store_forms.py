"""Signed messages out of stored rows. They were checked before they were stored."""

from pinaivu.messages import Award, Completion, Failure, Grant, Job
from pinaivu.store.gateway import AttemptRow, RequestRow
from pinaivu.typed_data import Signed, signed_from_bytes


def job_of(row: RequestRow) -> Signed[Job]:
    """The job of a request."""
    return signed_from_bytes(Job, row.job)


def grant_of(row: RequestRow) -> Signed[Grant]:
    """The grant a request was made under."""
    return signed_from_bytes(Grant, row.grant)


def award_of(row: AttemptRow) -> Signed[Award]:
    """The award of an attempt."""
    return signed_from_bytes(Award, row.award)


def completion_of(row: AttemptRow) -> Signed[Completion] | None:
    """The node's completion, where there is one."""
    return signed_from_bytes(Completion, row.completion) if row.completion else None


def failure_of(row: AttemptRow) -> Signed[Failure] | None:
    """The failure that was signed, where there is one."""
    return signed_from_bytes(Failure, row.failure) if row.failure else None
