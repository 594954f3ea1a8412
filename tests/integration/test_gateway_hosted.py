"""Hosted keys: one wallet of the gateway's, a sub-account for each key, limits that hold."""

import os
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from pinaivu import bundles
from pinaivu.commitments import account_of
from pinaivu.encoding import from_hex, to_hex
from pinaivu.messages import Receipt
from pinaivu.p2p import wire
from pinaivu.store.database import open_database
from pinaivu.store.gateway_keys import create_key
from pinaivu.typed_data import signed_from_bytes
from tests.integration.gateway_support import Network, in_thread, network, now_ms, request
from tests.integration.p2p_support import until
from tests.integration.scripted_node import speaks

BUNDLE: dict[str, Any] = dict.fromkeys(bundles.REQUIRED) | {"version": 1}
LIMIT = 10**6


def another_key(net: Network, limit: int | None) -> str:
    database = open_database(net.database, "gateway")
    made = create_key(
        database,
        payer=net.keys.payer.address,
        label="other",
        random=os.urandom,
        now_ms=now_ms(),
        hosted_limit_units=limit,
    )
    database.close()
    return made.secret


async def ask(net: Network, secret: str, **more: Any) -> tuple[str, Receipt]:
    """One answer with a key: its id and its receipt."""

    def call() -> Any:
        url = f"{net.url}/v1"
        with OpenAI(base_url=url, api_key=secret, max_retries=0, timeout=20) as sdk:
            return sdk.chat.completions.create(**request(**more))

    answer = await in_thread(call)
    request_id: str = answer.model_extra["request_id"]
    await until(lambda: net.gateway.logs.waiting == 0)
    row = await net.gateway.ledger.found_receipt(from_hex("0x" + request_id.replace("-", "")))
    assert row is not None
    assert row.problem is None, row.problem
    return request_id, signed_from_bytes(Receipt, row.signed).message


async def get(net: Network, secret: str, path: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {secret}"}
    found: httpx.Response = await in_thread(
        lambda: httpx.get(net.url + path, headers=headers, timeout=20)
    )
    return found


async def holder_part(net: Network, secret: str, request_id: str) -> dict[str, Any]:
    net.log.packed = bundles.pack(BUNDLE)
    found = await get(net, secret, f"/v1/receipts/{request_id}/bundle")
    holder: dict[str, Any] = bundles.unpack(found.content)["holder"]
    return holder


async def test_each_key_has_an_account_with_a_counter_of_its_own(tmp_path: Path) -> None:
    """Two hosted keys and a plain one take turns on one wallet; only the holder gets the secret."""
    async with network(tmp_path, speaks("Well."), key={"hosted_limit_units": LIMIT}) as net:
        other, plain = another_key(net, 2 * LIMIT), another_key(net, None)
        payer = net.keys.payer.address
        turns = [await ask(net, key) for key in (net.secret, other, plain, net.secret)]
        first, second, third, fourth = (receipt for _, receipt in turns)
        assert [r.payer_counter for _, r in turns] == [1, 2, 3, 4]
        assert [r.account_counter for _, r in turns] == [1, 1, 0, 2]
        assert [r.account_limit for _, r in turns] == [LIMIT, 2 * LIMIT, 0, LIMIT]
        assert first.account == fourth.account != second.account
        assert third.account == bytes(32)
        assert fourth.account_total == first.total + fourth.total
        mine = from_hex((await holder_part(net, net.secret, turns[0][0]))["account_secret"], 32)
        theirs = from_hex((await holder_part(net, other, turns[1][0]))["account_secret"], 32)
        assert (first.account, second.account) == (
            account_of(payer, mine),
            account_of(payer, theirs),
        )
        assert "account_secret" not in await holder_part(net, plain, turns[2][0])


async def test_a_job_never_costs_more_than_the_account_has_left(tmp_path: Path) -> None:
    """The job's limit is what is left; when nothing is, the key is told before the market is."""
    async with network(tmp_path, speaks("Well."), key={"hosted_limit_units": LIMIT}) as net:
        _, receipt = await ask(net, net.secret)
        small = another_key(net, receipt.total)
        await ask(net, small)
        job = list(net.coordinator.cases.values())[-1].job.message
        assert (job.max_cost, job.account_limit) == (receipt.total, receipt.total)
        submitted = net.coordinator.submissions
        with pytest.raises(openai.APIStatusError, match="used up") as caught:
            await ask(net, small)
        assert caught.value.code == "account_exhausted"
        assert net.coordinator.submissions == submitted


async def test_the_coordinators_refusal_is_the_keys_answer(tmp_path: Path) -> None:
    """Where another process of the gateway has spent the rest, the log's own books decide."""
    async with network(tmp_path, speaks("Well."), key={"hosted_limit_units": LIMIT}) as net:
        net.coordinator.refusal = wire.Refused("account_exhausted", "the limit would be exceeded")
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(net, net.secret)
        assert caught.value.code == "account_exhausted"


async def test_balance_of_a_hosted_key_is_its_account(tmp_path: Path) -> None:
    """Limit, spent and left add up and name their sources; the wallet isn't shown."""
    async with network(tmp_path, speaks("Well."), key={"hosted_limit_units": LIMIT}) as net:
        _, receipt = await ask(net, net.secret)
        body = (await get(net, net.secret, "/v1/balance")).json()
        account = body["account"]
        assert body["spent"]["units"] == receipt.total
        assert account["accounts"] == [to_hex(receipt.account)]
        assert account["limit"]["units"] == LIMIT
        assert account["reserved"]["units"] == 0
        assert account["left"]["units"] == LIMIT - receipt.total
        assert "wallets" not in body
        assert all(account[name]["source"] for name in ("limit", "reserved", "left"))


async def test_a_request_under_way_is_reserved(tmp_path: Path) -> None:
    """Until its receipt is there, a request counts with the most it could cost."""
    async with network(tmp_path, speaks("Well."), key={"hosted_limit_units": LIMIT}) as net:
        net.coordinator.receipts_flow = type(net.coordinator.receipts_flow)()
        await net.complete()
        account = (await get(net, net.secret, "/v1/balance")).json()["account"]
        assert account["reserved"]["units"] > 0
        net.coordinator.receipts_flow.set()
        await until(lambda: net.gateway.logs.waiting == 0)
        account = (await get(net, net.secret, "/v1/balance")).json()["account"]
        assert account["reserved"]["units"] == 0


async def test_a_key_lists_its_own_requests_only(tmp_path: Path) -> None:
    async with network(tmp_path, speaks("Well."), key={"hosted_limit_units": LIMIT}) as net:
        other = another_key(net, LIMIT)
        mine = [(await ask(net, net.secret))[0] for _ in range(2)]
        theirs = [(await ask(net, other))[0]]
        for secret, expected in ((net.secret, mine), (other, theirs)):
            page = (await get(net, secret, "/v1/receipts")).json()
            assert [entry["request_id"] for entry in page["data"]] == expected
            assert (page["has_more"], page["last_id"]) == (False, expected[-1])
        rest = (await get(net, net.secret, f"/v1/receipts?after={mine[0]}")).json()
        assert [entry["request_id"] for entry in rest["data"]] == mine[1:]
        assert (await get(net, net.secret, "/v1/receipts?after=x")).status_code == 400
