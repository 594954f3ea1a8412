"""The routes for what a key's holder pays with: its balance, and the list of its receipts.

Every amount names where it comes from. A key on its holder's own wallet is shown the wallet; a
hosted key is shown its account, since the wallet is the gateway's. Nothing here decides whether a
request is served: the coordinator does, by its own numbers.
"""

from typing import Any, Final
from uuid import UUID

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from gateway.access import Holder
from gateway.accounts import Account
from gateway.errors import ApiError
from gateway.http.surface import Gateway
from gateway.ledger import REFUSED
from gateway.store_forms import grant_of, job_of
from gateway.wallets import Wallet, Wallets
from pinaivu.chain.errors import ChainUnavailable
from pinaivu.chain.records import NO_LOG
from pinaivu.encoding import to_hex
from pinaivu.messages import Receipt
from pinaivu.metering import reserve
from pinaivu.store.gateway import RequestRow

_PAGE: Final = 100
_RESERVED: Final = "gateway: the most that requests without a receipt could cost"
_PENDING: Final = "log: receipts of this gateway that no settled batch holds yet"
_SPENT: Final = "log: this key's receipts; gateway: its answers whose receipt is to come"


def add_payer_routes(app: FastAPI, gateway: Gateway) -> None:
    """Add /v1/balance and /v1/receipts."""

    @app.get("/v1/balance")
    async def balance(request: Request) -> Response:
        holder = await gateway.holder(request)
        account = await gateway.desk.accounts.of(holder.key_id)
        body: dict[str, Any] = {"object": "balance", "key_id": holder.key_id}
        spent = await gateway.ledger.spent(holder.key_id)
        body["spent"] = _amount(spent.units, _SPENT)
        if account:
            return JSONResponse(body | {"account": await _account(gateway, holder, account)})
        return JSONResponse(body | {"wallets": await _wallets(gateway, holder)})

    @app.get("/v1/receipts")
    async def receipts(request: Request) -> Response:
        holder = await gateway.holder(request)
        after = request.query_params.get("after")
        rows = await gateway.ledger.requests_after(holder.key_id, _job_id(after), _PAGE)
        listed = [_listed(row) for row in rows if row.state != REFUSED]
        last = str(UUID(bytes=rows[-1].job_id)) if rows else after
        page = {"object": "list", "data": listed, "last_id": last, "has_more": len(rows) == _PAGE}
        return JSONResponse(page)


def _job_id(after: str | None) -> bytes:
    try:
        return UUID(after).bytes if after else b""
    except ValueError as error:
        raise ApiError(
            400, "invalid_value", "`after` is a request id, the `last_id` of a page.", param="after"
        ) from error


def _listed(row: RequestRow) -> dict[str, Any]:
    return {
        "request_id": str(UUID(bytes=row.job_id)),
        "model": row.model,
        "state": row.state,
        "created_ms": row.created_ms,
        "units": row.units,
    }


def _amount(units: int, source: str) -> dict[str, Any]:
    return {"units": units, "source": source}


async def _account(gateway: Gateway, holder: Holder, account: Account) -> dict[str, Any]:
    """A hosted key's account: what it may spend, has spent, could be spending, has left."""
    spent = await gateway.desk.accounts.spent(account)
    reserved = sum(
        _reserve(row) for row in await gateway.ledger.unfinished() if row.key_id == holder.key_id
    )
    return {
        "accounts": [to_hex(account.at(payer)) for payer in holder.payers],
        "limit": _amount(account.limit_units, "gateway: as on each receipt (`accountLimit`)"),
        "reserved": _amount(reserved, _RESERVED),
        "left": _amount(max(0, account.limit_units - spent - reserved), "limit − spent − reserved"),
    }


async def _wallets(gateway: Gateway, holder: Holder) -> list[dict[str, Any]]:
    if gateway.wallets is None:
        raise ApiError(503, "chain_unavailable", "This gateway reads no balances from a chain.")
    return [await _wallet(gateway, gateway.wallets, payer) for payer in holder.payers]


async def _wallet(gateway: Gateway, wallets: Wallets, payer: bytes) -> dict[str, Any]:
    """A wallet of the holder's own, with all that this gateway knows is spoken for."""
    try:
        found = await wallets.of(payer)
    except ChainUnavailable as error:
        detail = f"The chain can't be read ({error}); retry in a few seconds."
        raise ApiError(503, "chain_unavailable", detail, retry_after_s=5) from error
    reserved = sum(
        _reserve(row)
        for row in await gateway.ledger.unfinished()
        if grant_of(row).message.payer == payer
    )
    pending = sum(receipt.total for receipt in await _unsettled(gateway, found))
    chain = f"chain: block {found.block}"
    available = max(0, found.deposit - found.leaving - pending - reserved)
    return {
        "payer": to_hex(payer),
        "log_id": None if found.log_id == NO_LOG else to_hex(found.log_id),
        "deposit": _amount(found.deposit, chain),
        "leaving": _amount(found.leaving, chain),
        "debt": _amount(found.debt, chain),
        "pending": _amount(pending, _PENDING),
        "reserved": _amount(reserved, _RESERVED),
        "available": _amount(available, "deposit − leaving − pending − reserved"),
    }


async def _unsettled(gateway: Gateway, wallet: Wallet) -> list[Receipt]:
    found = await gateway.ledger.receipts_from(wallet.settled_size)
    whose = (wallet.payer, wallet.log_id)
    return [receipt for receipt in found if (receipt.payer, receipt.log_id) == whose]


def _reserve(row: RequestRow) -> int:
    """The most an open job can still cost, base units (types.md, section 3)."""
    job, grant = job_of(row).message, grant_of(row).message
    limit_in = min(job.max_price_in, grant.max_price_in)
    limit_out = min(job.max_price_out, grant.max_price_out)
    return reserve(job, grant.max_per_job, limit_in, limit_out)
