"""What stands beside the answers: ids, headers, receipts in the answer, models, attestation."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio

from gateway.ports import Offered, Prices, Standing
from pinaivu.codes import Feature, Reason
from pinaivu.encoding import to_hex
from pinaivu.p2p import wire
from tests.integration.gateway_support import FixedRegistry, Network, network, request
from tests.integration.scripted_node import refuses, speaks
from tests.integration.test_gateway_http import call, code_of
from tests.unit.gateway_facts import LOG, MODEL, RATIO_PPM

CHAT = Feature.KIND_CHAT
STANDING = Standing(
    nodes=3,
    slots=5,
    price_out=Prices(cheapest=400_000, median=500_000),
    context_tokens=1024,
    features=[Offered(int(CHAT), 2), Offered(int(CHAT | Feature.LOGPROBS), 1)],
)
WITH_RECEIPT = {"pinaivu": {"receipt": True}}


async def ask(net: Network, **body: Any) -> Any:
    return await call(net, "POST", "/v1/chat/completions", json=request(**body))


async def test_an_answer_says_who_served_and_what_it_came_to(tmp_path: Path) -> None:
    """By our own count; a stream's headers come before that is known."""
    async with network(tmp_path, speaks("Well, well.")) as net:
        whole = await ask(net)
        receipt = await net.receipt()
        node = to_hex(net.nodes[0].key.address)
        assert whole.headers["x-request-id"] == whole.json()["request_id"]
        assert whole.headers["x-pinaivu-node"] == node
        assert int(whole.headers["x-pinaivu-cost"]) == receipt.total > 0
        assert int(whole.headers["x-pinaivu-cost-limit"]) >= receipt.total
        streamed = await ask(net, stream=True)
        assert streamed.headers["x-pinaivu-node"] == node
        assert "x-pinaivu-cost" not in streamed.headers
        assert streamed.headers["x-request-id"] in streamed.text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_receipt_comes_with_the_answer_where_it_is_asked_for(
    tmp_path: Path, *, stream: bool
) -> None:
    async with network(tmp_path, speaks("Well.")) as net:
        answer = await net.complete(stream=stream, extra_body=WITH_RECEIPT)
        end = answer[-1] if stream else answer
        found = end.model_extra["pinaivu"]["receipt"]
        receipt = await net.receipt()
        assert (found["total"], found["status"]) == (receipt.total, "completed")
        assert found["segments"][0]["node"] == to_hex(net.nodes[0].key.address)
        assert found["segments"][0]["completion_tokens"] == receipt.segments[0].output_billed
        assert (found["log_id"], found["index"]) == (to_hex(LOG), 0)


async def test_an_answer_does_not_wait_long_for_its_receipt(tmp_path: Path) -> None:
    """It is left out where it doesn't come; the answer is whole all the same."""
    async with network(tmp_path, speaks("Well.")) as net:
        net.coordinator.receipts_flow = trio.Event()
        answer = await net.complete(extra_body=WITH_RECEIPT)
        assert answer.choices[0].message.content == "Well."
        assert "pinaivu" not in answer.model_extra
        net.coordinator.receipts_flow.set()


async def test_even_what_is_refused_has_a_request_id(tmp_path: Path) -> None:
    """Drawn for the answer and the logs where no job came of it."""
    async with network(tmp_path) as net:
        for answer in (await ask(net, temprature=1), await ask(net, model="nobody/has-it")):
            assert UUID(answer.json()["request_id"]).version == 7
            assert answer.headers["x-request-id"] == answer.json()["request_id"]


async def test_models_say_what_stands_on_offer(tmp_path: Path) -> None:
    """As the log says it, prices in by the registry's ratio; nothing where the log is away."""
    async with network(tmp_path) as net:
        assert (await call(net, "GET", f"/v1/models/{MODEL}")).json()["market"] == []
        net.log.standing = STANDING
        (found,) = (await call(net, "GET", "/v1/models")).json()["data"]
        assert found["market"] == [
            {
                "log_id": to_hex(LOG),
                "nodes": 3,
                "slots": 5,
                "context_length": 1024,
                "price_in": {
                    "cheapest": 400_000 * RATIO_PPM // 10**6,
                    "median": 500_000 * RATIO_PPM // 10**6,
                },
                "price_out": {"cheapest": 400_000, "median": 500_000},
            }
        ]
        net.log.away = True
        assert (await call(net, "GET", f"/v1/models/{MODEL}")).json()["market"] == []


async def test_what_no_node_offers_is_named(tmp_path: Path) -> None:
    """By the member that asks for it; where the log can't say, the market's words stand alone."""
    async with network(tmp_path) as net:
        net.coordinator.refusal = wire.Refused(
            "no_nodes_available", "no node", Reason.NO_NODES_AVAILABLE, 2_000
        )
        net.log.standing = STANDING
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
        for body, param in (
            ({"logprobs": True, "response_format": schema}, "response_format"),
            ({"n": 2}, "n"),
            ({}, None),
        ):
            answer = await ask(net, **body)
            assert code_of(answer) == (503, "no_nodes_available")
            assert answer.json()["error"]["param"] == param
            assert answer.headers["retry-after"] == "2"
        net.log.away = True
        assert (await ask(net, n=2)).json()["error"]["param"] is None


@pytest.mark.parametrize(
    ("terms", "param"),
    [
        ({"max_price_out": 399_999}, "pinaivu.max_price_out"),
        ({"max_price_in": 99_999}, "pinaivu.max_price_in"),
        ({"max_price_out": 400_000, "max_cost_units": 1}, "pinaivu.max_cost_units"),
        ({}, None),
    ],
)
async def test_the_callers_own_limit_is_named(
    tmp_path: Path, terms: dict[str, Any], param: str | None
) -> None:
    """Where it is the grant's, there is none to name; the message says the cheapest offer."""
    async with network(tmp_path) as net:
        net.coordinator.refusal = wire.Refused(
            "no_nodes_within_limits", "the cheapest is 400000", Reason.NO_NODES_WITHIN_LIMITS
        )
        net.log.standing = STANDING
        error = (await ask(net, pinaivu=terms)).json()["error"]
        assert (error["code"], error["param"]) == ("no_nodes_within_limits", param)
        assert "400000" in error["message"]


async def test_attestation_says_who_signs_for_each_log(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        found = (await call(net, "GET", "/v1/attestation")).json()
        (log,) = found["logs"]
        assert found["gateway"] == to_hex(net.keys.gateway.address)
        assert (log["log_id"], log["connected"], log["epoch"]) == (to_hex(LOG), True, 1)
        assert log["signer"] == to_hex(net.keys.epoch.address)
        assert log["measurement"] is None
        assert log["documents"] == ["http://127.0.0.1:1/attestation"]
        assert (await call(net, "GET", "/v1/attestation", secret="x")).status_code == 401


async def test_a_request_that_every_engine_refuses_is_the_callers_to_change(tmp_path: Path) -> None:
    """422, without Retry-After; where one node failed otherwise, it is worth another try."""
    no = refuses(Reason.REFUSED, "the engine answered 400: seed must be small", 400)
    async with network(tmp_path, no, no) as net:
        answer = await ask(net)
        assert code_of(answer) == (422, "request_refused")
        assert "seed must be small" in answer.json()["error"]["message"]
        assert "retry-after" not in answer.headers
    (tmp_path / "other").mkdir()
    async with network(tmp_path / "other", no, refuses(Reason.REFUSED_CAPACITY, "full", 0)) as net:
        assert code_of(await ask(net)) == (503, "no_node_left")


async def test_only_the_chain_makes_a_receipt_final(tmp_path: Path) -> None:
    """Asked anew each time, whatever the log says."""
    async with network(tmp_path, speaks("Well.")) as net:
        answer = await net.complete()
        await net.receipt()
        path = f"/v1/receipts/{answer.model_extra['request_id']}"
        (log,) = net.gateway.logs.values()
        registry = log.registry
        assert isinstance(registry, FixedRegistry)

        async def state() -> str:
            return str((await call(net, "GET", path)).json()["settlement"]["state"])

        assert await state() == "batched"
        net.log.settled = {"state": "final", "sequence": 7}
        assert await state() == "mined"
        registry.settled[7] = [0]
        assert await state() == "final"
        registry.chain_away = True
        assert await state() == "mined"
        registry.chain_away = False
        registry.settled[7] = [1, 2]  # another leaf's batch
        assert await state() == "mined"
