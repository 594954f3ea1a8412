"""Keys managed over HTTP: by administrators' keys only, within bounds, every change logged."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from pinaivu.encoding import to_hex
from pinaivu.store.database import open_database
from pinaivu.store.gateway_keys import create_key
from pinaivu.store.gateway_policy import Policy
from tests.integration.gateway_support import Network, network, now_ms, request
from tests.integration.scripted_node import speaks
from tests.integration.test_gateway_http import call, code_of

KEYS = "/v1/admin/keys"
CHAT = "/v1/chat/completions"


def admin_key(net: Network) -> tuple[str, str]:
    """As made on the gateway's machine: its id and secret."""
    database = open_database(net.database, "gateway")
    policy = Policy(scopes=("admin",))
    made = create_key(
        database, payer=b"", label="", random=os.urandom, now_ms=now_ms(), policy=policy
    )
    database.close()
    return made.key_id, made.secret


class Admin:
    """An administrator with a key."""

    def __init__(self, net: Network) -> None:
        self._net = net
        self.key_id, self._secret = admin_key(net)

    async def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request of it."""
        return await call(self._net, method, path, secret=self._secret, **more)


async def test_key_is_made_used_limited_rotated_and_revoked(tmp_path: Path) -> None:
    async with network(tmp_path, speaks("Hi.")) as net:
        admin, payer = Admin(net), to_hex(net.keys.payer.address)
        body = {"label": "app", "payers": [payer], "policy": {"streams": 2}}
        made = await admin("POST", KEYS, json=body)
        assert made.status_code == 201
        key_id, secret = made.json()["key_id"], made.json()["secret"]
        answer = await call(net, "POST", CHAT, secret=secret, json=request())
        assert answer.status_code == 200

        path, terms = f"{KEYS}/{key_id}", {"max_cost_units": 7}
        changed = await admin("PATCH", path, json={"streams": None, "terms": terms})
        shown = (await admin("GET", path)).json()
        assert changed.json() == shown
        assert shown["policy"] == {"terms": terms}
        rotated = await admin("POST", f"{path}/rotate")
        new_secret = rotated.json()["secret"]
        assert new_secret != secret
        assert (await call(net, "GET", "/v1/usage", secret=new_secret)).status_code == 200
        revoked = await admin("DELETE", path)
        assert revoked.json()["revoked_ms"] is not None
        await trio.sleep(2.0)  # what access.py promises
        for ended in (secret, new_secret):
            gone = await call(net, "GET", "/v1/usage", secret=ended)
            assert code_of(gone) == (401, "invalid_api_key")

        listed = (await admin("GET", KEYS)).json()["data"]
        assert key_id in [key["key_id"] for key in listed]
        log = await admin("GET", f"/v1/admin/log?subject={key_id}")
        acts = [(act["who"], act["what"]) for act in log.json()["data"]]
        whats = ("create key", "limit key", "rotate key", "revoke key")
        assert acts == [(f"api:{admin.key_id}", what) for what in whats]
        everything = log.text + (await admin("GET", KEYS)).text
        for one in (secret, new_secret):
            assert one.removeprefix("sk-pnv-")[:12] not in everything


async def test_only_administrators_are_let_in(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        ways = [("GET", KEYS), ("POST", KEYS), ("GET", "/v1/admin/log")]
        ways += [(method, f"{KEYS}/key-1") for method in ("GET", "PATCH", "DELETE")]
        for method, path in [*ways, ("POST", f"{KEYS}/key-1/rotate")]:
            stranger = await call(net, method, path, secret="sk-pnv-no", json={})
            assert code_of(stranger) == (401, "invalid_api_key")
            user = await call(net, method, path, json={})
            assert code_of(user) == (403, "scope_missing")


async def test_administrator_can_do_nothing_else_and_make_no_other(tmp_path: Path) -> None:
    """Its key spends nothing, and keys like it are out of its reach, its own included."""
    async with network(tmp_path) as net:
        admin, payer = Admin(net), to_hex(net.keys.payer.address)
        assert code_of(await admin("POST", CHAT, json=request())) == (403, "scope_missing")
        for path in ("/v1/models", "/v1/usage"):
            assert code_of(await admin("GET", path)) == (403, "scope_missing")
        more = {"payers": [payer], "policy": {"scopes": ["admin"]}}
        assert code_of(await admin("POST", KEYS, json=more)) == (403, "scope_missing")
        own = f"{KEYS}/{admin.key_id}"
        for method, path in (("PATCH", own), ("DELETE", own), ("POST", f"{own}/rotate")):
            refused = await admin(method, path, json={"streams": 1})
            assert code_of(refused) == (403, "scope_missing")
        users = [key["key_id"] for key in (await admin("GET", KEYS)).json()["data"]]
        path = f"{KEYS}/{next(key for key in users if key != admin.key_id)}"
        refused = await admin("PATCH", path, json={"scopes": ["admin"]})
        assert code_of(refused) == (403, "scope_missing")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_value"),
        (b"\xff", 400, "invalid_value"),
        (b"[]", 400, "invalid_value"),
        (b"{}", 400, "invalid_value"),
        (b'{"payers": []}', 400, "invalid_value"),
        (b'{"payers": ["0x12"]}', 400, "invalid_value"),
        (b'{"payers": ["PAYER"], "policy": {"streams": -1}}', 400, "invalid_value"),
        (b'{"payers": ["PAYER"], "policy": {"moon": 1}}', 400, "invalid_value"),
        (b'{"payers": ["PAYER"], "policy": {"scopes": []}}', 400, "invalid_value"),
        (b'{"payers": ["PAYER"], "secret": "mine"}', 400, "invalid_value"),
        (b" " * (1 << 17), 413, "request_too_large"),
    ],
)
async def test_body_that_makes_no_key_is_refused(
    tmp_path: Path, body: bytes, status: int, code: str
) -> None:
    async with network(tmp_path) as net:
        admin = Admin(net)
        content = body.replace(b"PAYER", to_hex(net.keys.payer.address).encode())
        before = (await admin("GET", KEYS)).json()
        assert code_of(await admin("POST", KEYS, content=content)) == (status, code)
        assert (await admin("GET", KEYS)).json() == before
        assert code_of(await admin("GET", f"{KEYS}/key-nobody")) == (404, "key_not_found")
        assert code_of(await admin("GET", f"{KEYS}?limit=x")) == (400, "invalid_value")
        assert len((await admin("GET", f"{KEYS}?limit=1")).json()["data"]) == 1
