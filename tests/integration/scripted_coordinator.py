# ruff: noqa: D102 - scripts and doubles, described at their class
"""A coordinator that awards what the test tells it to: real host, frames and signatures.

It holds no auction and keeps no log; its receipts follow the real rule.
"""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from pinaivu.books import Books
from pinaivu.codes import Clearing, Reason
from pinaivu.commitments import tokens_acknowledged
from pinaivu.keys import SecretKey
from pinaivu.messages import Award, Completion, Delivery, Failure, Grant, Job
from pinaivu.metering import Attempt, Tolerance, reserve
from pinaivu.p2p import PeerId, wire
from pinaivu.p2p.calls import Calls
from pinaivu.p2p.frames import FrameLimits, FrameStream
from pinaivu.p2p.host import Host, Liveness, open_host
from pinaivu.receipts import Case, Held, Origin, compose
from pinaivu.typed_data import Signed, signed_from_bytes
from tests.integration.p2p_support import PATIENCE
from tests.unit.gateway_facts import DOMAIN, FINGERPRINT, LOG, PRICE, RATIO_PPM, rules


@dataclass
class Keys:
    """Everybody's keys, new for each network."""

    gateway: SecretKey = field(default_factory=lambda: SecretKey.generate(os.urandom))
    payer: SecretKey = field(default_factory=lambda: SecretKey.generate(os.urandom))
    epoch: SecretKey = field(default_factory=lambda: SecretKey.generate(os.urandom))
    coordinator_peer: bytes = field(default_factory=lambda: os.urandom(32))
    gateway_peer: bytes = field(default_factory=lambda: os.urandom(32))


@dataclass
class OpenCase:
    """A job at the scripted coordinator."""

    job: Signed[Job]
    grant: Signed[Grant]
    awards: list[Signed[Award]] = field(default_factory=list)
    failures: list[Signed[Failure]] = field(default_factory=list)
    completions: list[Signed[Completion]] = field(default_factory=list)
    delivery: Signed[Delivery] | None = None
    receipt: wire.Receipted | None = None


class ScriptedCoordinator:
    """Awards to `line` in order, and receipts what is delivered. No auction, no log.

    `handed_in` are completions that it has from the nodes themselves.
    """

    def __init__(self, keys: Keys, log_id: bytes = LOG) -> None:
        self.keys = keys
        self.log_id = log_id
        self.line: list[bytes] = []
        self.refusal: wire.Refused | None = None
        self.change: Callable[[Award], Award] = lambda award: award
        self.signer = keys.epoch
        self.away = False
        """Whether it turns away whoever dials it."""
        self.dies_awarding = False
        self.dies_at_a_failure = False
        self.stays_away_at_a_failure = False
        self.receipts_flow = trio.Event()
        self.receipts_flow.set()
        self.cases: dict[bytes, OpenCase] = {}
        self.handed_in: list[Signed[Completion]] = []
        self.submissions = 0
        self.deliveries = 0
        self.streams: list[FrameStream] = []
        self.calls: list[Calls] = []
        self._books = Books()

    @property
    def only(self) -> OpenCase:
        """The one job there is."""
        (case,) = self.cases.values()
        return case

    async def serve(self, _peer: PeerId, stream: FrameStream) -> None:
        if self.away:
            stream.reset("away")
            return
        self.streams.append(stream)
        calls = Calls(stream, on_call=self._answer)
        self.calls.append(calls)
        await calls.run()

    async def put(self, frame: wire.PutBatch) -> wire.Done:
        """Hand over a batch; `CallRefused` where the gateway does not keep it."""
        return wire.read_batch_answer(await self.calls[-1].call(wire.encode(frame), PATIENCE))

    async def _answer(self, payload: bytes) -> bytes:
        frame = wire.read_gateway_to_coordinator(payload)
        match frame:
            case wire.Hello():
                assert frame.owner == self.keys.gateway.address
                assert frame.log_id == self.log_id
                return wire.encode(wire.Done())
            case wire.SubmitJob():
                return wire.encode(self._submit(frame))
            case wire.ReportFailure():
                return wire.encode(self._failed(signed_from_bytes(Failure, frame.failure)))
            case wire.Deliver():
                return wire.encode(await self._deliver(frame))

    def _submit(self, frame: wire.SubmitJob) -> wire.GatewayAnswer:
        self.submissions += 1
        job, grant = signed_from_bytes(Job, frame.job), signed_from_bytes(Grant, frame.grant)
        job.require(DOMAIN, self.keys.gateway.address)
        grant.require(DOMAIN, self.keys.payer.address)
        case = self.cases.setdefault(job.message.job_id, OpenCase(job, grant))
        if case.receipt:
            return case.receipt
        if self.refusal:
            return self.refusal
        answer = self._awarded(case.awards[-1]) if case.awards else self._award(case)
        if self.dies_awarding:
            self.dies_awarding = False
            self._die()
        return answer

    def _die(self) -> None:
        """Nobody hears the answer that was about to be given; it stands nevertheless."""
        for stream in self.streams:
            stream.reset("the coordinator died")

    def _failed(self, failure: Signed[Failure]) -> wire.GatewayAnswer:
        failure.require(DOMAIN, self.keys.gateway.address)
        for case in self.cases.values():
            if case.awards[-1].digest(DOMAIN) == failure.message.award_digest:
                case.failures.append(failure)
                if self.dies_at_a_failure or self.stays_away_at_a_failure:
                    self.away = self.stays_away_at_a_failure
                    self._die()
                return self._award(case)
        raise AssertionError("a failure of an unknown award")

    def _award(self, case: OpenCase) -> wire.GatewayAnswer:
        rank = len(case.awards) + 1
        job = case.job.message
        if rank > min(len(self.line), len(job.anchors)):
            return wire.Refused("no_node_left", "no further node", Reason.NO_NODE_LEFT)
        done = sum(
            tokens_acknowledged(f.message.acks, job.max_output_tokens) for f in case.failures
        )
        spent = sum(
            -(-tokens_acknowledged(f.message.acks, job.max_output_tokens) * PRICE // 10**6)
            for f in case.failures
        )
        award = Award(
            log_id=self.log_id,
            epoch=1,
            job_id=job.job_id,
            job_digest=case.job.digest(DOMAIN),
            gateway=job.gateway,
            node=self.line[rank - 1],
            rank=rank,
            prior=case.awards[-1].digest(DOMAIN) if case.awards else bytes(32),
            bid_digest=b"\x33" * 32,
            clearing=int(Clearing.SECOND_SCORE),
            price_in=PRICE * RATIO_PPM // 10**6,
            price_out=PRICE,
            prompt_tokens=job.prompt_tokens,
            max_output_tokens=job.max_output_tokens - done,
            max_amount=self._reserve(case) - spent,
            start_byte=case.failures[-1].message.end_byte if case.failures else 0,
            request_commitment=job.request_commitment,
            anchor=job.anchors[rank - 1],
            nonce=b"\x44" * 32,
            bids_root=b"\x55" * 32,
            lease=bytes(32),
            awarded_ms=job.created_ms,
            expires_ms=job.created_ms + 60_000,
        )
        signed = Signed.by(self.signer, DOMAIN, self.change(award))
        case.awards.append(signed)
        return self._awarded(signed)

    def _awarded(self, signed: Signed[Award]) -> wire.Awarded:
        return wire.Awarded(signed.to_bytes(), peer=bytes(64), tps_milli=100_000, ttft_ms=50)

    @staticmethod
    def _reserve(case: OpenCase) -> int:
        job, grant = case.job.message, case.grant.message
        return reserve(job, grant.max_per_job, job.max_price_in, job.max_price_out)

    async def _deliver(self, frame: wire.Deliver) -> wire.GatewayAnswer:
        await self.receipts_flow.wait()
        self.deliveries += 1
        job = signed_from_bytes(Job, frame.job)
        case = self.cases[job.message.job_id]
        if case.receipt:
            return case.receipt
        if frame.awards != [award.to_bytes() for award in case.awards]:
            return wire.Refused("bad_delivery", "its parts are not the job's awards")
        case.delivery = signed_from_bytes(Delivery, frame.delivery)
        case.delivery.require(DOMAIN, self.keys.gateway.address)
        failures = [signed_from_bytes(Failure, raw) for raw in frame.failures]
        assert failures[: len(case.failures)] == case.failures
        case.failures = failures
        delivered = [signed_from_bytes(Completion, raw) for raw in frame.completions]
        case.completions = [*self.handed_in, *delivered]
        case.receipt = self.receipt(case)
        return case.receipt

    def receipt(self, case: OpenCase) -> wire.Receipted:
        """The receipt by the real rule."""
        job, delivery = case.job.message, case.delivery
        completions = {c.message.award_digest: c for c in case.completions}
        failures = {f.message.award_digest: f.message for f in case.failures}
        parts = {part.award_digest: part for part in delivery.message.parts} if delivery else {}
        digests = [award.digest(DOMAIN) for award in case.awards]
        line = [
            Attempt(
                award=award.message,
                completion=completions[digest].message if digest in completions else None,
                completion_digest=(
                    completions[digest].digest(DOMAIN) if digest in completions else bytes(32)
                ),
                failure=failures.get(digest),
                part=parts.get(digest),
            )
            for award, digest in zip(case.awards, digests, strict=True)
        ]
        terms = rules()
        facts = Case(
            job=job,
            job_digest=case.job.digest(DOMAIN),
            grant=case.grant.message,
            held=Held(
                fingerprint=FINGERPRINT,
                nonce=b"\x44" * 32,
                bids_root=b"\x55" * 32,
                bids=len(self.line),
            ),
            line=line,
            award_digests=digests,
            delivery=delivery.message if delivery else None,
            delivery_digest=delivery.digest(DOMAIN) if delivery else bytes(32),
            unserved_reason=self.refusal.reason if self.refusal else 0,
            received_ms=job.created_ms,
            closed_ms=job.created_ms + 1,
            reserve_units=self._reserve(case),
            fee_bps=[terms.fee_bps] * len(line),
            tolerance=Tolerance(terms.tolerance_tokens, terms.tolerance_ppm),
        )
        origin = Origin(
            log_id=self.log_id, epoch=1, measurement=b"\x66" * 32, parameters_digest=terms.digest()
        )
        receipt = compose(facts, origin, self._books)
        self._books.post(receipt)
        signed = Signed.by(self.keys.epoch, DOMAIN, receipt)
        return wire.Receipted(signed.to_bytes(), index=len(self.cases) - 1)


AS_IN_SERVICE: Final = Liveness()


@asynccontextmanager
async def scripted_coordinator(
    keys: Keys, log_id: bytes = LOG, liveness: Liveness = AS_IN_SERVICE
) -> AsyncGenerator[tuple[ScriptedCoordinator, Host]]:
    """A coordinator that listens."""
    coordinator = ScriptedCoordinator(keys, log_id)
    listen = ["/ip4/127.0.0.1/tcp/0"]
    async with open_host(keys.coordinator_peer, listen, liveness=liveness) as host:
        limits = FrameLimits.of(wire.MAX_CONTROL_FRAME)
        host.serve(wire.GATEWAY_PROTOCOL, coordinator.serve, limits)
        yield coordinator, host
