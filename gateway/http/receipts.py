"""The routes for what remains of a request: its receipt, its bundle, and the key's usage.

A key sees its own requests only; others' don't exist for it. Bundles are fetched from the
coordinator's public log and opened for the holder: the salt, and the prompt and answer while the
gateway keeps them, which the holder's key opens. They are not verified here; `pinaivu verify` does
that, at the holder's. How far a receipt is settled is the log's word, but for `final`, which this
gateway reads from the chain.
"""

from typing import Any, Final
from uuid import UUID

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from gateway.errors import ApiError
from gateway.http.surface import Gateway
from gateway.ledger import DAY_MS, REFUSED, Spent
from gateway.seals import Seal
from gateway.store_forms import job_of
from pinaivu import bundles
from pinaivu.encoding import parse_json, to_hex
from pinaivu.errors import TransportFailure
from pinaivu.messages import Receipt
from pinaivu.store.gateway import CountDifferenceRow, RequestRow
from pinaivu.typed_data import signed_from_bytes

_RETRY_AFTER_S: Final = 2


def add_receipt_routes(app: FastAPI, gateway: Gateway) -> None:
    """Add the routes under /v1/receipts and /v1/usage."""

    @app.get("/v1/receipts/{request_id}")
    async def receipt(request_id: str, request: Request) -> Response:
        row, _ = await _own_request(gateway, request, request_id)
        found = await gateway.ledger.found_receipt(row.job_id)
        if found is None:
            return _not_yet(row)
        settlement = await _settlement(gateway, row, found.position)
        body = {
            "request_id": str(UUID(bytes=row.job_id)),
            "receipt": signed_from_bytes(Receipt, found.signed).to_json(),
            "index": found.position,
            "settlement": settlement,
        }
        if differing := await gateway.ledger.differences(row.job_id):
            body["count_differences"] = [_difference(each) for each in differing]
        return JSONResponse(body | ({"problem": found.problem} if found.problem else {}))

    @app.get("/v1/receipts/{request_id}/bundle")
    async def bundle(request_id: str, request: Request) -> Response:
        row, seal = await _own_request(gateway, request, request_id)
        log = gateway.logs.get(job_of(row).message.log_id)
        public = log and await log.public.bundle(
            gateway.desk.identity.address, str(UUID(bytes=row.job_id))
        )
        if not public:
            return _not_yet(row)
        holder = _holder(row, seal)
        account = await gateway.desk.accounts.of(row.key_id)
        if account and any(job_of(row).message.account):
            holder["account_secret"] = to_hex(account.secret)
        opened = bundles.pack(bundles.unpack(public) | {"holder": holder})
        return Response(opened, media_type="application/octet-stream")

    @app.get("/v1/usage")
    async def usage(request: Request) -> Response:
        return JSONResponse(await _usage(gateway, request))


async def _own_request(
    gateway: Gateway, request: Request, request_id: str
) -> tuple[RequestRow, Seal]:
    """The request of this id and what opens it, if the key that asks has made it; 404 otherwise."""
    holder = await gateway.holder(request, "receipts")
    try:
        row = await gateway.ledger.request(UUID(request_id).bytes)
    except ValueError:
        row = None
    if row is None or row.key_id != holder.key_id:
        raise ApiError(
            404,
            "request_not_found",
            "This key has made no request of this id; the id is `request_id` in the answer.",
        )
    return row, holder.seal


def _not_yet(row: RequestRow) -> Response:
    request_id = str(UUID(bytes=row.job_id))
    if row.state == REFUSED:
        raise ApiError(
            404,
            "no_receipt",
            "The market refused this request; nothing was charged and there is no receipt.",
        )
    body = {"request_id": request_id, "state": row.state}
    return JSONResponse(body, status_code=202, headers={"retry-after": str(_RETRY_AFTER_S)})


async def _settlement(gateway: Gateway, row: RequestRow, index: int) -> dict[str, Any]:
    """How far the log says it is settled; the last state is believed to the chain alone."""
    log = gateway.logs.get(job_of(row).message.log_id)
    if log is None:
        return {"state": "logged", "detail": "its log is not configured here any more"}
    request_id = str(UUID(bytes=row.job_id))
    try:
        said = await log.public.settlement(gateway.desk.identity.address, request_id)
    except TransportFailure:
        why = "the log's server can't be reached; this is what the receipt itself says"
        return {"state": "logged", "detail": why}
    if said.get("state") != "final":
        return said
    try:
        if await log.registry.settles(int(said["sequence"]), index):
            return said
        why = "the log says final, the chain does not yet"
    except (TransportFailure, LookupError, TypeError, ValueError):
        why = "the log says final; the chain can't be asked right now"
    return said | {"state": "mined", "detail": why}


def _difference(row: CountDifferenceRow) -> dict[str, Any]:
    return {
        "rank": row.rank,
        "node": to_hex(row.node),
        "tokens": row.what,
        "by_node": row.by_node,
        "by_gateway": row.by_gateway,
    }


def _holder(row: RequestRow, seal: Seal) -> dict[str, Any]:
    holder: dict[str, Any] = {"salt": to_hex(row.salt_root)}
    body = seal.open(row.job_id, "request", row.body)
    if body is not None:
        holder["request"] = parse_json(body)
    response = seal.open(row.job_id, "response", row.response)
    if response is not None:
        holder["response"] = parse_json(response)
    return holder


async def _usage(gateway: Gateway, request: Request) -> dict[str, Any]:
    """Today against the quota, and ever; amounts are base units of the settlement token."""
    holder = await gateway.holder(request, "usage")
    policy, day = holder.policy, gateway.desk.now_ms() // DAY_MS
    used = await gateway.ledger.spent(holder.key_id, day)
    reserved = await gateway.ledger.reserved(holder.key_id)
    ever = await gateway.ledger.spent(holder.key_id)
    return {
        "object": "usage",
        "key_id": holder.key_id,
        "today": _counted(used)
        | {
            "day": day,
            "reserved_tokens": reserved.tokens,
            "reserved_units": reserved.units,
            "limit_tokens": policy.daily_tokens,
            "limit_units": policy.daily_units,
            "resets_at_ms": (day + 1) * DAY_MS,
        },
        "total": _counted(ever),
    }


def _counted(spent: Spent) -> dict[str, int]:
    return {"requests": spent.requests, "tokens": spent.tokens, "units": spent.units}
