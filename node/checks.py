"""What must hold before a node works for an award: one small check after the other.

`Gatekeeper.check` turns a `Dispatch` into an `Order` or raises `JobRefused` with the reason that
goes to the gateway. It trusts nobody: the award must be signed by the epoch key that the chain has
for the log, name this node, this gateway's registered peer and a price this node signed, and the
body must be the one committed to, of the size that was auctioned. Slots and the award's single use
are the executor's business. That the gateway will pay is not checked: the coordinator reserved it,
and preimages bound the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from node.errors import JobRefused
from node.gateways import Gateways
from node.logs import Epoch, LogWatch
from node.models import ServedModel
from node.ports import NowMs
from node.quotes import Quote, Quotes
from pinaivu.auction.rule import MILLION
from pinaivu.codes import Clearing, Feature, JobKind, Reason
from pinaivu.commitments import request_commitment, request_digest
from pinaivu.encoding import parse_json
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import BadSignature, checksum
from pinaivu.messages import Award
from pinaivu.metering import Tolerance
from pinaivu.openai import Request, read_request, require_inline_images
from pinaivu.p2p import PeerId, wire
from pinaivu.typed_data import Domain, Signed, signed_from_bytes

_SALT_BYTES: Final = 32
_LONG_BODY: Final = 32 << 10
_NOT_FOR_THIS_ENGINE: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A checked dispatch: everything that the work needs. `prompt_tokens` is this node's count."""

    award: Award
    digest: bytes
    signed: bytes
    epoch: Epoch
    model: ServedModel
    request: Request
    body: Mapping[str, Any]
    prompt_tokens: int
    prefix: str
    salt_response: bytes
    salt_segment: bytes


class Gatekeeper:
    """Checks dispatches for one node."""

    def __init__(
        self,
        node: bytes,
        domain: Domain,
        *,
        logs: Mapping[bytes, LogWatch],
        gateways: Gateways,
        quotes: Quotes,
        models: Mapping[str, ServedModel],
        now_ms: NowMs,
    ) -> None:
        self._node = node
        self._domain = domain
        self._logs = logs
        self._gateways = gateways
        self._quotes = quotes
        self._models = models
        self._now_ms = now_ms

    async def check(self, peer: PeerId, dispatch: wire.Dispatch) -> Order:
        """The order that `peer`'s dispatch makes; raises `JobRefused` or `TransportFailure`."""
        signed = _read_award(dispatch.award)
        award = signed.message
        epoch = self._epoch(award)
        digest = self._signature(signed, epoch)
        self._addressee(award)
        await self._gateways.require(award.gateway, peer)
        quote = self._quotes.find(award.bid_digest)
        model = self._model(award, quote)
        check_rank(award)
        check_price(award, quote, model.record.ratio_ppm)
        check_budget(award)
        self._expiry(award)
        body = check_commitment(award, dispatch)
        request = check_request(dispatch.kind, body, model.name, Feature(quote.offer.features))
        check_obeyed(body, model.ignored)
        check_size(award, request, model.context_tokens)
        check_continuation(award, dispatch.prefix, request, Feature(quote.offer.features))
        return Order(
            award=award,
            digest=digest,
            signed=dispatch.award,
            epoch=epoch,
            model=model,
            request=request,
            body=body,
            prompt_tokens=await self._prompt(award, request, dispatch, body, model, epoch),
            prefix=dispatch.prefix,
            salt_response=check_salt(dispatch.salt_response),
            salt_segment=check_salt(dispatch.salt_segment),
        )

    def _epoch(self, award: Award) -> Epoch:
        """The epoch an award names must be its log's active one."""
        log = self._logs.get(award.log_id)
        if log is None:
            raise _no(f"log 0x{award.log_id.hex()} is not one this node works for")
        if any(award.lease):
            raise _no("leases are not served in this version")
        return log.require(award.epoch)

    def _signature(self, signed: Signed[Award], epoch: Epoch) -> bytes:
        try:
            return signed.require(self._domain, epoch.signer)
        except BadSignature as error:
            raise _no(str(error)) from error

    def _addressee(self, award: Award) -> None:
        if award.node != self._node:
            raise _no(f"the award is for node {checksum(award.node)}")

    def _model(self, award: Award, quote: Quote) -> ServedModel:
        """The model of the quote, which must have been made for the award's log."""
        if quote.offer.log_id != award.log_id:
            raise _no("the award names a bid or offer for another log")
        model = self._models.get(quote.offer.model)
        if model is None:
            raise _no(f"model {quote.offer.model!r} is no longer served")
        return model

    def _expiry(self, award: Award) -> None:
        now = self._now_ms()
        if now >= award.expires_ms:
            late = now - award.expires_ms
            raise JobRefused(Reason.REFUSED_EXPIRED, f"the award expired {late} ms ago")

    async def _prompt(
        self,
        award: Award,
        request: Request,
        dispatch: wire.Dispatch,
        body: Mapping[str, Any],
        model: ServedModel,
        epoch: Epoch,
    ) -> int:
        """This node's count of the prompt, which the award's must be close to."""
        count = model.tokenizer.count_prompt
        try:
            if len(dispatch.body) > _LONG_BODY:  # everybody else in this process would feel it
                found = await trio.to_thread.run_sync(count, body, request.kind)
            else:
                found = count(body, request.kind)
        except InvalidEncoding as error:
            raise JobRefused(
                Reason.REFUSED_PROMPT_COUNT, f"the prompt can't be counted: {error}"
            ) from error
        check_prompt_count(award, found, epoch)
        return found


def check_price(award: Award, quote: Quote, ratio_ppm: int) -> None:
    """The clearing price is not below what was signed, save for an exploration job that was agreed.

    An exploration job pays the lesser of the bid and the regular price, and only to those whose
    offer accepts it.
    """
    explores = award.clearing == Clearing.EXPLORATION and Feature.EXPLORATION & quote.offer.features
    if award.price_out < quote.price_out and not explores:
        raise _no(f"the award pays {award.price_out}, the bid was {quote.price_out}")
    if award.price_in != award.price_out * ratio_ppm // MILLION:
        raise _no(f"the input price {award.price_in} does not follow from the model's ratio")


def check_rank(award: Award) -> None:
    """A first award stands alone; a later one voids the one before it.

    That the one before has failed is not seen here: its gateway said so to the coordinator.
    """
    if award.rank < 1 or (award.rank == 1) == any(award.prior):
        raise _no(f"rank {award.rank} does not go with prior 0x{award.prior.hex()}")
    if award.rank == 1 and award.start_byte:
        raise _no("a first award begins at byte 0")


def check_budget(award: Award) -> None:
    """What is left of the job's money pays for all that the award asks for.

    It does wherever each node of the job fitted the reservation by itself, as the auction demands.
    What those before were acknowledged is rounded up for each: a base unit may be missing.
    """
    most = award.prompt_tokens * award.price_in + award.max_output_tokens * award.price_out
    if award.max_amount + award.rank - 1 < -(-most // MILLION):
        raise _no(f"{award.max_amount} base units do not pay for the tokens of the award")


def check_commitment(award: Award, dispatch: wire.Dispatch) -> dict[str, Any]:
    """The body, which must be the one the award commits to."""
    try:
        body = parse_json(dispatch.body)
        if not isinstance(body, dict):
            raise _no("the body is no JSON object")
        found = request_commitment(check_salt(dispatch.salt_request), request_digest(body))
    except InvalidEncoding as error:
        raise _no(f"the body can't be committed to: {error}") from error
    if found != award.request_commitment:
        raise _no("body and salt do not give the award's request commitment")
    return body


def check_request(kind: int, body: Mapping[str, Any], model: str, offered: Feature) -> Request:
    """The body's request: for the model, and nothing that was not offered."""
    try:
        request = read_request(JobKind(kind), body)
        require_inline_images(request)
    except (InvalidEncoding, ValueError) as error:
        raise _no(f"the body is no request of kind {kind}: {error}") from error
    if request.model != model:
        raise _no(f"the body asks for model {request.model!r}, the offer was for {model!r}")
    missing = request.features & ~offered
    if missing:
        raise _no(f"the body needs features that were not offered: {missing!r}")
    return request


def check_obeyed(body: Mapping[str, Any], ignored: frozenset[str]) -> None:
    """No member asks for what this engine would leave without a word."""
    found = sorted(name for name in ignored & body.keys() if body[name] is not None)
    if found:
        why = f"the engine here doesn't know {', '.join(found)}"
        raise JobRefused(Reason.REFUSED, why, engine_status=_NOT_FOR_THIS_ENGINE)


def check_size(award: Award, request: Request, context_tokens: int) -> None:
    """Prompt and output fit the context, and each choice has at least a token."""
    if award.max_output_tokens < request.choices and request.kind != JobKind.EMBEDDING:
        raise _no(f"{award.max_output_tokens} output tokens are too few for the choices asked for")
    if award.prompt_tokens + award.max_output_tokens > context_tokens:
        raise _no(
            f"{award.prompt_tokens} prompt and {award.max_output_tokens} output tokens do not fit"
            f" into {context_tokens} tokens of context"
        )


def check_continuation(award: Award, prefix: str, request: Request, offered: Feature) -> None:
    """The text so far is as long as the award says, and this node offered to continue texts."""
    if len(prefix.encode("utf-8", "surrogatepass")) != award.start_byte:
        raise _no(f"the text so far does not end at byte {award.start_byte}")
    if award.start_byte and not (request.continuable and Feature.CONTINUES & offered):
        raise _no("this answer can't be continued here")


def check_prompt_count(award: Award, found: int, epoch: Epoch) -> None:
    """The award's prompt count is this node's own within the log's tolerance."""
    rules = epoch.parameters
    if Tolerance(rules.tolerance_tokens, rules.tolerance_ppm).exceeded(award.prompt_tokens, found):
        raise JobRefused(
            Reason.REFUSED_PROMPT_COUNT,
            f"the award is for {award.prompt_tokens} prompt tokens, this node counts {found}",
        )


def check_salt(salt: bytes) -> bytes:
    """A salt of 32 bytes."""
    if len(salt) != _SALT_BYTES:
        raise _no(f"a salt has {_SALT_BYTES} bytes, not {len(salt)}")
    return salt


def _read_award(raw: bytes) -> Signed[Award]:
    try:
        return signed_from_bytes(Award, raw)
    except InvalidEncoding as error:
        raise _no(f"the dispatch holds no award: {error}") from error


def _no(why: str) -> JobRefused:
    return JobRefused(Reason.REFUSED, why)
