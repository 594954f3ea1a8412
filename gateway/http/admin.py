"""Keys managed over HTTP, by a key whose only scope is `admin`.

    GET    /v1/admin/keys?after_ms=&limit=     oldest first
    POST   /v1/admin/keys                      {"label", "payers": ["0x…"], "policy": {…}}
    GET    /v1/admin/keys/{key_id}
    PATCH  /v1/admin/keys/{key_id}             members of the policy; null takes a limit away
    POST   /v1/admin/keys/{key_id}/rotate
    DELETE /v1/admin/keys/{key_id}             revokes
    GET    /v1/admin/log?after=&limit=&subject=

Keys for administration are made on the gateway's machine, by `pinaivu keys create --scope admin`.
Here they are neither made nor changed: a stolen one can't keep itself alive. Grants are not managed
here either. One request at a time, bodies up to 64 KiB, lists up to 1,000; every change is logged
with the id of the key that made it.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, TypeVar

import msgspec
import trio
from fastapi import FastAPI, Request
from msgspec import Meta, Struct
from starlette.responses import JSONResponse, Response

from gateway.errors import ApiError
from gateway.http.bodies import read_body
from gateway.http.surface import Gateway
from pinaivu.encoding import to_hex
from pinaivu.errors import Misconfigured
from pinaivu.store import gateway_keys as store
from pinaivu.store.database import Database
from pinaivu.store.gateway_acts import list_acts
from pinaivu.store.gateway_keys import KeyInfo, Unknown
from pinaivu.store.gateway_policy import Policy, changed

T = TypeVar("T")
MOST_BYTES: Final = 1 << 16
_MOST_LISTED: Final = 1000
_PREFIX: Final = "/v1/admin"
_Address = Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]{40}\Z")]


class NewKeyBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key is to be."""

    label: Annotated[str, Meta(max_length=256)] = ""
    payers: Annotated[list[_Address], Meta(min_length=1, max_length=8)]
    policy: dict[str, Any] = {}


class Administration:
    """The administrator's functions, one at a time, each in the name of a key."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._turn = trio.Lock()

    async def who(self, request: Request) -> str:
        """The administrator that asks; 401 or 403 for anybody else."""
        return f"api:{(await self._gateway.holder(request, 'admin')).key_id}"

    @property
    def now_ms(self) -> int:
        """The gateway's clock."""
        return self._gateway.desk.now_ms()

    @property
    def random(self) -> Callable[[int], bytes]:
        """Where secrets come from."""
        return self._gateway.random

    async def do(self, action: Callable[[Database], T]) -> T:
        """Carry it out; 404 where there is no such key, 400 where it can't be."""
        try:
            async with self._turn:
                return await self._gateway.ledger.manage(action)
        except Unknown as error:
            raise ApiError(404, "key_not_found", f"{_sentence(error)}.") from error
        except Misconfigured as error:
            raise ApiError(400, "invalid_value", f"{_sentence(error)}. Correct it.") from error

    async def body(self, request: Request, kind: type[T]) -> T:
        """The request's body as `kind`; 400, 408 or 413 otherwise."""
        raw = await read_body(request, MOST_BYTES)
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ApiError(400, "invalid_value", f"{_sentence(error)}. Correct it.") from error


def add_admin_routes(app: FastAPI, gateway: Gateway) -> None:
    """Add the routes under /v1/admin."""
    desk = Administration(gateway)
    _add_list_routes(app, desk)
    _add_key_routes(app, desk)

    @app.post(f"{_PREFIX}/keys")
    async def create(request: Request) -> Response:
        who, wanted = await desk.who(request), await desk.body(request, NewKeyBody)
        first, *further = (bytes.fromhex(payer[2:]) for payer in wanted.payers)

        def make(database: Database) -> store.NewKey:
            return store.create_key(
                database,
                payer=first,
                further_payers=further,
                label=wanted.label,
                random=desk.random,
                now_ms=desk.now_ms,
                policy=_for_users(changed(Policy(), wanted.policy)),
                who=who,
            )

        made = await desk.do(make)
        return JSONResponse(msgspec.to_builtins(made), status_code=201)


def _add_list_routes(app: FastAPI, desk: Administration) -> None:
    @app.get(f"{_PREFIX}/keys")
    async def keys(request: Request) -> Response:
        await desk.who(request)
        most, after_ms = _number(request, "limit", _MOST_LISTED), _number(request, "after_ms", 0)
        found = await desk.do(partial(store.list_keys, after_ms=after_ms, most=most))
        return JSONResponse({"object": "list", "data": [_shown(key) for key in found]})

    @app.get(f"{_PREFIX}/log")
    async def log(request: Request) -> Response:
        await desk.who(request)
        most, after = _number(request, "limit", _MOST_LISTED), _number(request, "after", 0)
        subject = request.query_params.get("subject")

        def read(database: Database) -> list[Any]:
            with database.read() as session:
                return list_acts(session, subject=subject, after=after, most=most)

        acts = msgspec.to_builtins(await desk.do(read))
        return JSONResponse({"object": "list", "data": acts})


def _add_key_routes(app: FastAPI, desk: Administration) -> None:
    path = f"{_PREFIX}/keys/{{key_id}}"

    @app.get(path)
    async def show(key_id: str, request: Request) -> Response:
        await desk.who(request)
        return JSONResponse(_shown(await desk.do(partial(store.find_key, key_id=key_id))))

    @app.patch(path)
    async def limit(key_id: str, request: Request) -> Response:
        who, changes = await desk.who(request), await desk.body(request, dict[str, Any])

        def change(database: Database) -> KeyInfo:
            _for_users(store.find_key(database, key_id).policy)
            _for_users(changed(Policy(), changes))
            store.change_policy(database, key_id, changes, now_ms=desk.now_ms, who=who)
            return store.find_key(database, key_id)

        return JSONResponse(_shown(await desk.do(change)))

    @app.post(f"{path}/rotate")
    async def rotate(key_id: str, request: Request) -> Response:
        who = await desk.who(request)

        def change(database: Database) -> store.NewKey:
            _for_users(store.find_key(database, key_id).policy)
            return store.rotate_key(
                database, key_id, random=desk.random, now_ms=desk.now_ms, who=who
            )

        return JSONResponse(msgspec.to_builtins(await desk.do(change)))

    @app.delete(path)
    async def revoke(key_id: str, request: Request) -> Response:
        who = await desk.who(request)

        def change(database: Database) -> KeyInfo:
            _for_users(store.find_key(database, key_id).policy)
            store.revoke_key(database, key_id, desk.now_ms, who)
            return store.find_key(database, key_id)

        return JSONResponse(_shown(await desk.do(change)))


def _for_users(policy: Policy) -> Policy:
    """The policy, unless it is an administrator's; those are the machine's business."""
    if "admin" in policy.scopes:
        raise ApiError(
            403,
            "scope_missing",
            "Keys for administration are made and changed on the gateway's machine only: use"
            " `pinaivu keys` there.",
        )
    return policy


def _shown(key: KeyInfo) -> dict[str, Any]:
    return {
        "object": "key",
        "key_id": key.key_id,
        "shown": key.shown,
        "label": key.label,
        "payer": to_hex(key.payer) if key.payer else None,
        "policy": msgspec.to_builtins(key.policy),
        "created_ms": key.created_ms,
        "revoked_ms": key.revoked_ms,
    }


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 16):  # noqa: PLR2004 - any time fits
        raise ApiError(400, "invalid_value", f"{name} is a whole number. Correct it.", param=name)
    return min(int(text), default) if name == "limit" else int(text)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]
