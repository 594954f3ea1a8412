"""A scenario played through: awards, failures, completions and a delivery, all really signed.

Nodes and gateway are functions here; what they sign is what the real ones would.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pinaivu.auction import rule
from pinaivu.auction.rule import Cleared
from pinaivu.codes import Finish, Outcome, Reason
from pinaivu.commitments import acks_due, segment_commitment, tokens_acknowledged
from pinaivu.messages import Award, Completion, Delivery, Failure, Part
from pinaivu.metering import Attempt
from pinaivu.receipts import PassedOver
from pinaivu.testing.auctions import Auction
from pinaivu.testing.lies import Lies
from pinaivu.testing.parties import CARD, EpochParty, Parties
from pinaivu.testing.requests import MAX_OUTPUT_TOKENS, Request
from pinaivu.testing.scenarios import Turn
from pinaivu.typed_data import Signed, digest

_ZERO: Final = bytes(32)
_CUT_AFTER: Final = 40
_AHEAD: Final = 10
_MILLION: Final = 10**6
_WHOLE: Final = (Turn.SERVED, Turn.DISPUTED, Turn.UNENDED, Turn.UNSIGNED, Turn.UNREPORTED)
_RESULTS: Final = {
    Turn.REFUSED: Reason.REFUSED,
    Turn.BROKEN: Reason.STREAM_BROKEN,
    Turn.BROKEN_SIGNED: Reason.STREAM_BROKEN,
    Turn.UNENDED: Reason.STREAM_BROKEN,
    Turn.CLIENT_GONE: Reason.CLIENT_GONE,
}


@dataclass
class Leg:
    """One award and what became of it; tokens are positions in the whole answer."""

    turn: Turn
    award: Signed[Award]
    node: bytes
    start: int
    stop: int
    failure: Signed[Failure] | None = None
    completion: Signed[Completion] | None = None


@dataclass
class Service:
    """Everything signed about one job after its auction."""

    legs: list[Leg] = field(default_factory=list)
    line: list[Leg | PassedOver] = field(default_factory=list)
    delivery: Signed[Delivery] | None = None
    tokens: int = 0
    finish: str | None = None

    def attempts(self, parties: Parties) -> list[Attempt | PassedOver]:
        """The line as `receipts.compose` takes it."""
        parts = self.delivery.message.parts if self.delivery else ()
        by_award = {part.award_digest: part for part in parts}
        domain = parties.domain
        return [
            entry
            if isinstance(entry, PassedOver)
            else Attempt(
                award=entry.award.message,
                completion=entry.completion.message if entry.completion else None,
                completion_digest=entry.completion.digest(domain) if entry.completion else _ZERO,
                failure=entry.failure.message if entry.failure else None,
                part=by_award.get(entry.award.digest(domain)),
            )
            for entry in self.line
        ]


class Player:
    """Plays one job's turns in order."""

    def __init__(
        self,
        request: Request,
        auction: Auction,
        parties: Parties,
        epoch: EpochParty,
        now_ms: Callable[[], int],
        lies: Lies,
    ) -> None:
        self._request = request
        self._auction = auction
        self._parties = parties
        self._epoch = epoch
        self._now_ms = now_ms
        self._lies = lies
        self._done = Service()

    def play(self, turns: tuple[Turn, ...]) -> Service:
        """Award, run and report each turn; deliver unless the gateway never reports."""
        for turn in turns:
            self._turn(turn)
        if turns and turns[-1] != Turn.UNREPORTED:
            self._deliver(turns[-1])
        return self._done

    def _turn(self, turn: Turn) -> None:
        done, auction = self._done, self._auction
        excluded = frozenset(
            entry.node if isinstance(entry, PassedOver) else entry.award.message.node
            for entry in done.line
        )
        cleared = rule.clear(auction.market, auction.entrants, excluded)
        assert cleared, "the scenario has more turns than the auction has nodes"
        if turn == Turn.PASSED_OVER:
            done.line.append(PassedOver(cleared.entrant.row.node))
            return
        award = Signed.by(self._epoch.key, self._parties.domain, self._award(cleared))
        start = done.legs[-1].stop if done.legs else 0
        leg = Leg(turn, award, cleared.entrant.row.node, start, self._stop(turn, start))
        if turn in (Turn.REFUSED, Turn.BROKEN, Turn.BROKEN_SIGNED, Turn.UNENDED):
            leg.failure = self._failure(leg)
        if turn not in (Turn.REFUSED, Turn.BROKEN, Turn.UNENDED, Turn.UNSIGNED):
            leg.completion = self._completion(leg)
        done.legs.append(leg)
        done.line.append(leg)
        done.tokens = leg.stop
        done.finish = "stop" if turn in _WHOLE else None
        if turn == Turn.UNENDED:
            done.finish = "length"

    def _stop(self, turn: Turn, start: int) -> int:
        if turn == Turn.REFUSED:
            return start
        return len(self._request.words) if turn in _WHOLE else _CUT_AFTER

    def _award(self, cleared: Cleared) -> Award:
        job, legs = self._request.job.message, self._done.legs
        tokens, money, start = job.max_output_tokens, self._auction.header.reserve, 0
        for leg in legs:
            assert leg.failure
            spent = tokens_acknowledged(leg.failure.message.acks, job.max_output_tokens)
            tokens -= spent
            money -= -(-spent * leg.award.message.price_out // _MILLION)
            start = leg.failure.message.end_byte
        domain, now_ms = self._parties.domain, self._now_ms()
        row, bid = cleared.entrant.row, cleared.entrant.bid
        award = Award(
            log_id=job.log_id,
            epoch=self._epoch.number,
            job_id=job.job_id,
            job_digest=self._request.job.digest(domain),
            gateway=job.gateway,
            node=row.node,
            rank=len(legs) + 1,
            prior=legs[-1].award.digest(domain) if legs else _ZERO,
            bid_digest=digest(domain, bid) if bid else row.offer_digest,
            clearing=int(cleared.clearing),
            price_in=cleared.price_in,
            price_out=cleared.price_out,
            prompt_tokens=job.prompt_tokens,
            max_output_tokens=tokens,
            max_amount=money,
            start_byte=start,
            request_commitment=job.request_commitment,
            anchor=self._request.chains[len(legs)].anchor,
            nonce=self._auction.header.nonce,
            bids_root=self._auction.root,
            lease=_ZERO,
            awarded_ms=now_ms,
            expires_ms=now_ms + self._epoch.parameters.award_ttl_ms,
        )
        return self._lies.award(award)

    def _acks(self, leg: Leg) -> int:
        if leg.turn == Turn.REFUSED:
            return 0
        return acks_due(leg.stop - leg.start, MAX_OUTPUT_TOKENS)

    def _failure(self, leg: Leg) -> Signed[Failure]:
        failure = Failure(
            award_digest=leg.award.digest(self._parties.domain),
            gateway=self._parties.gateway.address,
            reason=int(_RESULTS[leg.turn]),
            acks=self._acks(leg),
            output_tokens=leg.stop - leg.start,
            end_byte=len(self._request.text(0, leg.stop)),
            reported_ms=self._now_ms(),
        )
        return Signed.by(self._parties.gateway, self._parties.domain, self._lies.failure(failure))

    def _completion(self, leg: Leg) -> Signed[Completion]:
        request, award = self._request, leg.award.message
        ahead = _AHEAD if leg.turn in (Turn.CLIENT_GONE, Turn.BROKEN_SIGNED) else 0
        stop, acks, now_ms = leg.stop + ahead, self._acks(leg), self._now_ms()
        text = request.text(leg.start, stop)
        if leg.turn == Turn.DISPUTED:
            text = text.replace(b"w", b"v")
        start_byte = len(request.text(0, leg.start))
        whole = leg.turn in _WHOLE
        commitment = request.response_commitment(stop, finish="stop") if whole else _ZERO
        chain = request.chains[len(self._done.legs)]
        completion = Completion(
            award_digest=leg.award.digest(self._parties.domain),
            node=award.node,
            fingerprint=CARD.fingerprint,
            segment_commitment=segment_commitment(self._salt(len(self._done.legs)), text),
            response_commitment=commitment,
            start_byte=start_byte,
            end_byte=start_byte + len(text),
            prompt_tokens=self._request.job.message.prompt_tokens,
            output_tokens=stop - leg.start,
            acks=acks,
            last_preimage=chain.preimage(acks),
            finish=int(Finish.STOP if whole else Finish.CANCELLED),
            started_ms=now_ms - 30,
            first_token_ms=now_ms - 20,
            finished_ms=now_ms,
            audit_commitment=_ZERO,
        )
        key = next(n.key for n in self._parties.nodes if n.key.address == leg.node)
        return Signed.by(key, self._parties.domain, self._lies.completion(completion))

    def _salt(self, position: int) -> bytes:
        return self._request.salts.segment(position + 1)

    def _deliver(self, last: Turn) -> None:
        done, domain = self._done, self._parties.domain
        outcome = Outcome.COMPLETE if last in _WHOLE else Outcome.FAILED
        outcome = Outcome.CLIENT_GONE if last == Turn.CLIENT_GONE else outcome
        delivery = Delivery(
            job_digest=self._request.job.digest(domain),
            gateway=self._parties.gateway.address,
            response_commitment=self._request.response_commitment(done.tokens, finish=done.finish),
            outcome=int(outcome),
            delivered_ms=self._now_ms(),
            parts=tuple(self._part(number, leg) for number, leg in enumerate(done.legs)),
        )
        done.delivery = Signed.by(self._parties.gateway, domain, self._lies.delivery(delivery))

    def _part(self, position: int, leg: Leg) -> Part:
        request, domain, now_ms = self._request, self._parties.domain, self._now_ms()
        text = request.text(leg.start, leg.stop)
        start_byte = len(request.text(0, leg.start))
        return Part(
            award_digest=leg.award.digest(domain),
            completion_digest=leg.completion.digest(domain) if leg.completion else _ZERO,
            segment_commitment=segment_commitment(self._salt(position), text),
            start_byte=start_byte,
            end_byte=start_byte + len(text),
            output_tokens=leg.stop - leg.start,
            acks=self._acks(leg),
            result=int(_RESULTS.get(leg.turn, Reason.NONE)),
            first_token_ms=now_ms - 15 if text else 0,
            finished_ms=now_ms - 1,
        )
