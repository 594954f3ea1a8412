"""The open jobs: evidence as it comes in, money reserved, load per node, and when a job closes.

In memory; every entry can be rebuilt from the store after a restart. A job closes when delivery and
completions are in, a little after a delivery, or long after its last award has expired. A node is
busy with an award until it is over one way or another, at the latest when it expires: a gateway
that went away doesn't keep nodes from working.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from coordinator.field import Ranking
from pinaivu.commitments import tokens_acknowledged
from pinaivu.manifest import Parameters
from pinaivu.messages import Award, Completion, Delivery, Failure, Grant, Job, Offer, Receipt
from pinaivu.metering import Attempt, Tolerance
from pinaivu.receipts import Case, Held, PassedOver
from pinaivu.typed_data import Domain, Signed


@dataclass(slots=True)
class Awarded:
    """One award and what has been said of it."""

    signed: Signed[Award]
    digest: bytes
    completion: Signed[Completion] | None = None
    failure: Signed[Failure] | None = None
    running: bool = False  # counted among its node's open awards
    offer: Offer | None = None  # what it rests on, and where its node is; unknown after a restart
    peer: bytes = b""


@dataclass(slots=True)
class OpenJob:
    """A job between its acceptance and its receipt."""

    job: Signed[Job]
    job_digest: bytes
    grant: Signed[Grant]
    received_ms: int
    reserve_units: int
    held: Held
    line: list[Awarded | PassedOver] = field(default_factory=list)
    delivery: Signed[Delivery] | None = None
    delivered_ms: int = 0
    unserved_reason: int = 0
    ranking: Ranking | None = None  # None after a restart: no further rank is awarded
    closing: bool = False  # handed to the sequencer: evidence comes too late
    receipted: trio.Event = field(default_factory=trio.Event)
    receipt: tuple[Signed[Receipt], int] | None = None

    @property
    def key(self) -> tuple[bytes, bytes]:
        """(gateway, job id)."""
        return (self.job.message.gateway, self.job.message.job_id)

    @property
    def awards(self) -> list[Awarded]:
        """The awards among the line, in rank order."""
        return [entry for entry in self.line if isinstance(entry, Awarded)]

    @property
    def decided(self) -> bool:
        """Whether the auction has ended: there is an award, or a reason why there is none."""
        return bool(self.awards or self.unserved_reason)

    @property
    def tokens_left(self) -> int:
        """Output tokens that were not accepted under any award reported as failed."""
        most = self.job.message.max_output_tokens
        failures = [entry.failure.message for entry in self.awards if entry.failure]
        return most - sum(tokens_acknowledged(failure.acks, most) for failure in failures)

    def closes_at_ms(self, parameters: Parameters) -> int:
        """When the job closes if nothing more comes in; 0: at once."""
        if not self.awards:
            return 0
        if self.delivery:
            if all(entry.completion for entry in self.awards):
                return 0
            return self.delivered_ms + parameters.close_after_delivery_ms
        last = self.awards[-1].signed.message.expires_ms
        return last + parameters.close_after_expiry_ms

    def case(self, domain: Domain, closed_ms: int, epochs: dict[int, Parameters]) -> Case:
        """The evidence as `receipts.compose` takes it; fees follow each award's epoch."""
        parts = self.delivery.message.parts if self.delivery else ()
        by_award = {part.award_digest: part for part in parts}
        line: list[Attempt | PassedOver] = []
        for entry in self.line:
            if isinstance(entry, PassedOver):
                line.append(entry)
                continue
            line.append(
                Attempt(
                    award=entry.signed.message,
                    completion=entry.completion.message if entry.completion else None,
                    completion_digest=(
                        entry.completion.digest(domain) if entry.completion else bytes(32)
                    ),
                    failure=entry.failure.message if entry.failure else None,
                    part=by_award.get(entry.digest),
                )
            )
        rules = [epochs[entry.signed.message.epoch] for entry in self.awards]
        newest = rules[-1] if rules else epochs[max(epochs)]
        return Case(
            job=self.job.message,
            job_digest=self.job_digest,
            grant=self.grant.message,
            held=self.held,
            line=line,
            award_digests=[entry.digest for entry in self.awards],
            delivery=self.delivery.message if self.delivery else None,
            delivery_digest=self.delivery.digest(domain) if self.delivery else bytes(32),
            unserved_reason=self.unserved_reason,
            received_ms=self.received_ms,
            closed_ms=closed_ms,
            reserve_units=self.reserve_units,
            fee_bps=[rule.fee_bps for rule in rules],
            tolerance=Tolerance(newest.tolerance_tokens, newest.tolerance_ppm),
        )


class Docket:
    """All open jobs, by (gateway, job id) and by award."""

    def __init__(self) -> None:
        self.jobs: dict[tuple[bytes, bytes], OpenJob] = {}
        self._by_digest: dict[bytes, OpenJob] = {}
        self._by_award: dict[bytes, tuple[OpenJob, Awarded]] = {}
        self._busy: Counter[bytes] = Counter()
        self.on_load: list[Callable[[bytes], None]] = []
        """Told a node each time it is busier or less busy."""

    def open(self, job: OpenJob) -> None:
        """Take a job in; its reserve counts from now."""
        self.jobs[job.key] = job
        self._by_digest[job.job_digest] = job
        for entry in job.awards:
            self._index(job, entry)

    def award(self, job: OpenJob, signed: Signed[Award], digest: bytes) -> Awarded:
        """Add an award; its node is busy with it from now."""
        entry = Awarded(signed, digest)
        job.line.append(entry)
        self._index(job, entry)
        return entry

    def find_job(self, job_digest: bytes) -> OpenJob | None:
        """The open job of a digest."""
        return self._by_digest.get(job_digest)

    def find_award(self, digest: bytes) -> tuple[OpenJob, Awarded] | None:
        """The open job and award of an award digest."""
        return self._by_award.get(digest)

    def close(self, job: OpenJob) -> None:
        """Forget a job that is receipted, or never came to be, and what it held."""
        del self.jobs[job.key]
        del self._by_digest[job.job_digest]
        for entry in job.awards:
            del self._by_award[entry.digest]
            self._release(entry)

    def complete(self, entry: Awarded, completion: Signed[Completion]) -> None:
        """A node's completion of an award; the first one stands."""
        if entry.completion is None:
            entry.completion = completion
            self._release(entry)

    def fail(self, entry: Awarded, failure: Signed[Failure]) -> None:
        """A gateway's failure of an award; the first one stands."""
        if entry.failure is None:
            entry.failure = failure
            self._release(entry)

    def release_expired(self, now_ms: int) -> None:
        """Nobody works on an award that has expired."""
        for _, entry in self._by_award.values():
            if entry.signed.message.expires_ms <= now_ms:
                self._release(entry)

    def busy(self, node: bytes) -> int:
        """Awards of this log still open at a node."""
        return self._busy[node]

    def reserved_for(self, payer: bytes, account: bytes) -> int:
        """Base units reserved for the open jobs of a payer's sub-account."""
        return sum(
            j.reserve_units
            for j in self.jobs.values()
            if (j.grant.message.payer, j.job.message.account) == (payer, account)
        )

    def reserved(self, payer: bytes) -> int:
        """Base units reserved for a payer's open jobs."""
        return sum(j.reserve_units for j in self.jobs.values() if j.grant.message.payer == payer)

    def all_reserved(self) -> int:
        """Base units reserved for all open jobs."""
        return sum(j.reserve_units for j in self.jobs.values())

    def reserved_under(self, grant_digest: bytes) -> int:
        """Base units reserved under one grant."""
        return sum(
            j.reserve_units
            for j in self.jobs.values()
            if j.job.message.grant_digest == grant_digest
        )

    def _index(self, job: OpenJob, entry: Awarded) -> None:
        self._by_award[entry.digest] = (job, entry)
        entry.running = entry.completion is None and entry.failure is None
        if entry.running:
            self._load(entry.signed.message.node, 1)

    def _release(self, entry: Awarded) -> None:
        if entry.running:
            entry.running = False
            self._load(entry.signed.message.node, -1)

    def _load(self, node: bytes, change: int) -> None:
        self._busy[node] += change
        if not self._busy[node]:
            del self._busy[node]
        for notify in self.on_load:
            notify(node)
