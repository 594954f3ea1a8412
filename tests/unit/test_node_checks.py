"""Every check before a node works: what passes, and each way not to."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from node.checks import check_obeyed, check_request
from node.errors import JobRefused
from node.models import SERVED
from pinaivu.chain.errors import ChainUnavailable
from pinaivu.codes import Clearing, Feature, JobKind, Reason
from pinaivu.commitments import request_commitment, request_digest
from pinaivu.errors import PinaivuError
from pinaivu.p2p import wire
from tests.unit import node_support as n


async def _refusal(desk: n.Desk, dispatch: wire.Dispatch, peer: object = None) -> JobRefused:
    with pytest.raises(JobRefused) as caught:
        await desk.gatekeeper.check(peer or n.peer_of(n.GATEWAY_PEER), dispatch)  # type: ignore[arg-type]
    return caught.value


async def test_an_award_that_fits_makes_an_order() -> None:
    """The order holds this node's own prompt count and the model that the offer named."""
    desk, job = n.Desk(), n.JobDraft()
    award = job.award(desk.bid_digest)
    order = await desk.gatekeeper.check(n.peer_of(n.GATEWAY_PEER), job.dispatch(award))
    assert order.award == award
    assert order.model.name == n.MODEL
    assert order.prompt_tokens == n.tokenizer().count_prompt(n.BODY)
    assert order.salt_segment == job.salts.segment(1)


WRONG_AWARDS: list[tuple[str, dict[str, Any], Reason, str]] = [
    ("another log", {"log_id": b"\x99" * 32}, Reason.REFUSED, "not one this node works for"),
    ("another epoch", {"epoch": 2}, Reason.REFUSED, "active is 1"),
    ("another node", {"node": n.STRANGER.address}, Reason.REFUSED, "is for node"),
    ("another gateway", {"gateway": n.STRANGER.address}, Reason.REFUSED, "not registered"),
    ("a lease", {"lease": b"\x01" * 32}, Reason.REFUSED, "leases"),
    ("no bid of ours", {"bid_digest": b"\x01" * 32}, Reason.REFUSED, "no bid or offer"),
    ("below the bid", {"price_out": n.PRICE - 4, "price_in": 99_999}, Reason.REFUSED, "the bid"),
    ("a wrong input price", {"price_in": n.PRICE // 4 - 1}, Reason.REFUSED, "ratio"),
    ("no rank", {"rank": 0}, Reason.REFUSED, "rank 0"),
    ("a first that voids", {"prior": b"\x01" * 32}, Reason.REFUSED, "rank 1"),
    ("a second that voids nothing", {"rank": 2}, Reason.REFUSED, "rank 2"),
    ("too little money", {"max_amount": 42}, Reason.REFUSED, "do not pay"),
    ("expired", {"expires_ms": n.NOW}, Reason.REFUSED_EXPIRED, "expired"),
    ("another body", {"request_commitment": b"\x01" * 32}, Reason.REFUSED, "commitment"),
    ("no output", {"max_output_tokens": 0}, Reason.REFUSED, "too few"),
    ("beyond the context", {"max_output_tokens": 2040}, Reason.REFUSED, "do not fit"),
    ("text from nowhere", {"start_byte": 3}, Reason.REFUSED, "begins at byte 0"),
    ("a prompt too long", {"prompt_tokens": 1}, Reason.REFUSED_PROMPT_COUNT, "this node counts"),
    ("a prompt too short", {"prompt_tokens": 99}, Reason.REFUSED_PROMPT_COUNT, "this node counts"),
]


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [row[1:] for row in WRONG_AWARDS],
    ids=[row[0] for row in WRONG_AWARDS],
)
async def test_a_wrong_award_is_refused(changes: dict[str, Any], reason: Reason, says: str) -> None:
    """One field of a signed award is wrong; the refusal names it with its code."""
    desk, job = n.Desk(), n.JobDraft()
    refusal = await _refusal(desk, job.dispatch(job.award(desk.bid_digest, **changes)))
    assert (refusal.reason, says in str(refusal)) == (reason, True), str(refusal)


async def test_an_award_by_another_key_is_refused() -> None:
    """Only the epoch key that the chain names signs awards."""
    desk, job = n.Desk(), n.JobDraft()
    dispatch = job.dispatch(job.award(desk.bid_digest), signer=n.STRANGER)
    assert "signed by" in str(await _refusal(desk, dispatch))


async def test_a_log_without_an_epoch_gets_no_work() -> None:
    """A revoked or expired epoch's key signs nothing any more."""
    desk, job = n.Desk(), n.JobDraft()
    desk.log.current = None
    assert "active is none" in str(await _refusal(desk, job.dispatch(job.award(desk.bid_digest))))


async def test_a_stream_of_another_peer_is_refused() -> None:
    """A gateway's award is worked on only over its registered peer's own connection."""
    desk, job = n.Desk(), n.JobDraft()
    refusal = await _refusal(desk, job.dispatch(job.award(desk.bid_digest)), n.peer_of(n.STRANGER))
    assert n.peer_of(n.STRANGER) in str(refusal)


async def test_an_offer_for_another_log_is_no_bid_here() -> None:
    """What one log was offered can't be sold by another."""
    desk, job = n.Desk(), n.JobDraft()
    digest = desk.quote(n.offer(log_id=b"\x12" * 32))
    assert "another log" in str(await _refusal(desk, job.dispatch(job.award(digest))))


async def test_a_bid_below_the_offer_counts_as_the_price() -> None:
    """The clearing price may lie between the bid and the offer."""
    desk, job = n.Desk(), n.JobDraft()
    digest = desk.quote(n.offer(), price_out=n.PRICE - 1000)
    award = job.award(digest, price_out=n.PRICE - 500, price_in=(n.PRICE - 500) // 4)
    await desk.gatekeeper.check(n.peer_of(n.GATEWAY_PEER), job.dispatch(award))


@pytest.mark.parametrize("accepts", [False, True])
async def test_exploration_pays_less_only_where_it_was_accepted(accepts: bool) -> None:  # noqa: FBT001
    """An offer says whether it takes exploration jobs, which may pay less than was bid."""
    desk, job = n.Desk(), n.JobDraft()
    features = SERVED | Feature.EXPLORATION if accepts else SERVED
    digest = desk.quote(n.offer(features=int(features)))
    award = job.award(digest, price_out=4, price_in=1, clearing=int(Clearing.EXPLORATION))
    if accepts:
        await desk.gatekeeper.check(n.peer_of(n.GATEWAY_PEER), job.dispatch(award))
    else:
        await _refusal(desk, job.dispatch(award))


def _body(**members: object) -> bytes:
    return msgspec.json.encode(n.BODY | members)


WRONG_BODIES: list[tuple[str, bytes, str]] = [
    ("another model", _body(model="other"), "asks for model"),
    ("images", _body(messages=[{"role": "user", "content": [{"type": "image_url",
     "image_url": {"url": "https://x.test/y.png"}}]}]), "fetched by nobody"),
    ("a chat template", _body(chat_template="{{ 1 }}"), "no request of kind 1"),
    ("nothing to say", _body(messages=[]), "no request of kind 1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "says"), [row[1:] for row in WRONG_BODIES], ids=[row[0] for row in WRONG_BODIES]
)
async def test_a_body_that_was_not_offered_is_refused(body: bytes, says: str) -> None:
    """The award may be right and commit to something this node does not serve."""
    desk, job = n.Desk(), n.JobDraft()
    digest = request_digest(msgspec.json.decode(body))
    award = job.award(
        desk.bid_digest, request_commitment=request_commitment(job.salts.request, digest)
    )
    dispatch = msgspec.structs.replace(job.dispatch(award), body=body)
    refusal = await _refusal(desk, dispatch)
    assert says in str(refusal), str(refusal)


MUTATED: list[tuple[str, Callable[[wire.Dispatch], dict[str, Any]], str]] = [
    ("no award", lambda _: {"award": b"\x01"}, "no award"),
    ("no JSON", lambda _: {"body": b"{"}, "committed"),
    ("no object", lambda _: {"body": b"[]"}, "no JSON object"),
    ("two readings", lambda _: {"body": b'{"a":1,"a":2}'}, "committed"),
    ("other bytes", lambda d: {"body": d.body.replace(b"lamp", b"ship")}, "commitment"),
    ("other salt", lambda _: {"salt_request": b"\x01" * 32}, "commitment"),
    ("short salt", lambda _: {"salt_response": b"\x01" * 31}, "32 bytes"),
    ("short segment salt", lambda _: {"salt_segment": b""}, "32 bytes"),
    ("a prefix", lambda _: {"prefix": "Once"}, "does not end at byte 0"),
    ("half a surrogate", lambda _: {"prefix": "Once é"}, "does not end at byte 0"),
]


@pytest.mark.parametrize(
    ("change", "says"), [row[1:] for row in MUTATED], ids=[row[0] for row in MUTATED]
)
async def test_a_dispatch_with_a_wrong_part_is_refused(
    change: Callable[[wire.Dispatch], dict[str, Any]], says: str
) -> None:
    """The award is right; what came with it is not."""
    desk, job = n.Desk(), n.JobDraft()
    good = job.dispatch(job.award(desk.bid_digest))
    refusal = await _refusal(desk, msgspec.structs.replace(good, **change(good)))
    assert (refusal.reason, says in str(refusal)) == (Reason.REFUSED, True), str(refusal)


async def test_the_body_may_be_written_differently() -> None:
    """The commitment is over the canonical form, without how the answer is delivered."""
    desk, job = n.Desk(), n.JobDraft()
    dispatch = job.dispatch(job.award(desk.bid_digest))
    other = msgspec.json.format(_body(stream=True, stream_options={"include_usage": True}))
    order = await desk.gatekeeper.check(
        n.peer_of(n.GATEWAY_PEER), msgspec.structs.replace(dispatch, body=other)
    )
    assert order.request.stream


async def test_a_text_goes_on_only_where_that_was_offered() -> None:
    """A later rank continues the text so far; its offer must have said that it can."""
    desk, job = n.Desk(), n.JobDraft(prefix="Once upon é", rank=2)
    dispatch = job.dispatch(job.award(desk.bid_digest, prior=b"\x01" * 32))
    order = await desk.gatekeeper.check(n.peer_of(n.GATEWAY_PEER), dispatch)
    assert order.prefix == "Once upon é"
    plain = desk.quote(n.offer(features=int(SERVED & ~Feature.CONTINUES)))
    refusal = await _refusal(desk, job.dispatch(job.award(plain)))
    assert "can't be continued" in str(refusal)


async def test_several_choices_are_never_continued() -> None:
    """Their texts are interleaved; nobody could go on from there."""
    body = _body(n=2)
    desk, job = n.Desk(), n.JobDraft(body=body, prefix="Once", rank=2)
    assert "continued" in str(await _refusal(desk, job.dispatch(job.award(desk.bid_digest))))


async def test_counts_within_the_tolerance_pass() -> None:
    """Two tokens more or less are no reason to refuse."""
    desk, job = n.Desk(), n.JobDraft()
    counted = n.tokenizer().count_prompt(n.BODY)
    award = job.award(desk.bid_digest, prompt_tokens=counted + 2)
    order = await desk.gatekeeper.check(n.peer_of(n.GATEWAY_PEER), job.dispatch(award))
    assert order.prompt_tokens == counted


async def test_a_gateway_is_looked_up_once_and_again_only_on_doubt() -> None:
    """Known peers cost no chain read; a stranger can't cause one more than every few seconds."""
    desk, job = n.Desk(), n.JobDraft()
    dispatch = job.dispatch(job.award(desk.bid_digest))
    for _ in range(3):
        await desk.gatekeeper.check(n.peer_of(n.GATEWAY_PEER), dispatch)
    assert desk.chain.looks == 1
    for _ in range(3):
        await _refusal(desk, dispatch, n.peer_of(n.STRANGER))
    assert desk.chain.looks == 1
    desk.now_ms += 6000
    record = desk.chain.gateways[n.GATEWAY.address]
    desk.chain.gateways[n.GATEWAY.address] = replace(record, peer_point=n.STRANGER.point)
    await desk.gatekeeper.check(n.peer_of(n.STRANGER), dispatch)
    assert desk.chain.looks == 2


async def test_without_a_chain_an_unknown_gateway_is_an_error_of_transport() -> None:
    """It is not the gateway's fault, and may work a moment later."""
    desk, job = n.Desk(), n.JobDraft()

    def fail(_: bytes) -> None:
        raise ChainUnavailable("away")

    desk.chain.gateway = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(PinaivuError, match="away"):
        await desk.gatekeeper.check(
            n.peer_of(n.GATEWAY_PEER), job.dispatch(job.award(desk.bid_digest))
        )


def test_what_the_engine_would_ignore_is_refused_by_name() -> None:
    """As the engine itself would refuse it, if it said anything at all."""
    with pytest.raises(JobRefused, match="min_tokens") as caught:
        check_obeyed({"min_tokens": 2, "seed": 1}, frozenset({"min_tokens", "bad_words"}))
    assert caught.value.engine_status == 400
    check_obeyed({"min_tokens": None, "seed": 1}, frozenset({"min_tokens"}))


def test_features_that_were_not_offered_are_refused() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    with pytest.raises(JobRefused, match="not offered"):
        check_request(1, n.BODY | {"tools": [tool]}, n.MODEL, Feature.KIND_CHAT)
    with pytest.raises(JobRefused, match="kind 9"):
        check_request(9, n.BODY, n.MODEL, Feature.KIND_CHAT)


async def test_each_kind_is_read_as_what_it_is() -> None:
    """The prompt is counted by its kind, and an embedding needs no output tokens."""
    for kind, body, tokens in (
        (JobKind.COMPLETION, {"prompt": [1, 2, 3]}, 16),
        (JobKind.EMBEDDING, {"input": [[1, 2], [3]]}, 0),
    ):
        desk = n.Desk()
        job = n.JobDraft(body=msgspec.json.encode({"model": n.MODEL} | body), kind=kind)
        award = job.award(desk.bid_digest, prompt_tokens=3, max_output_tokens=tokens)
        order = await desk.gatekeeper.check(n.peer_of(n.GATEWAY_PEER), job.dispatch(award))
        assert (order.request.kind, order.prompt_tokens) == (kind, 3)
