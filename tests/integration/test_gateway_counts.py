"""Counts of node and gateway that differ: stored with both, and shown beside the receipt."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.http.metrics import metrics_of
from pinaivu.codes import Reason
from tests.integration.gateway_support import Network, in_thread, network
from tests.integration.scripted_node import Script, Work, speaks
from tests.unit.gateway_facts import MODEL, model


def signs(**claims: Any) -> Script:
    """An honest answer with a completion that claims something else."""

    async def play(work: Work) -> None:
        await work.say("It is so.", finish="stop")
        await work.end(**claims)

    return play


async def _shown(net: Network) -> dict[str, Any]:
    answer = await net.complete()
    await net.receipt()
    path = f"{net.url}/v1/receipts/{answer.model_extra['request_id']}"
    headers = {"authorization": f"Bearer {net.secret}"}
    found = await in_thread(lambda: httpx.get(path, headers=headers, timeout=20))
    shown: dict[str, Any] = found.json()
    return shown


async def test_padded_output_is_shown_with_both_counts_and_not_billed(tmp_path: Path) -> None:
    async with network(tmp_path, signs(output_tokens=99)) as net:
        shown = await _shown(net)
        true = model().tokenizer.count_text("It is so.")
        (difference,) = shown["count_differences"]
        assert difference == {
            "rank": 1,
            "node": "0x" + net.nodes[0].key.address.hex(),
            "tokens": "output",
            "by_node": 99,
            "by_gateway": true,
        }
        (segment,) = shown["receipt"]["message"]["segments"]
        assert (segment["outputBilled"], segment["result"]) == (true, Reason.COUNTS_DIFFER)


async def test_padded_prompt_is_shown_and_not_billed(tmp_path: Path) -> None:
    async with network(tmp_path, signs(prompt_tokens=500)) as net:
        shown = await _shown(net)
        (difference,) = shown["count_differences"]
        assert (difference["tokens"], difference["by_node"]) == ("prompt", 500)
        (segment,) = shown["receipt"]["message"]["segments"]
        assert segment["promptBilled"] == difference["by_gateway"] < 500


@pytest.mark.parametrize("script", [speaks("It is so."), signs(output_tokens=5)])
async def test_counts_within_tolerance_are_no_difference(tmp_path: Path, script: Script) -> None:
    assert abs(model().tokenizer.count_text("It is so.") - 5) <= 2
    async with network(tmp_path, script) as net:
        assert "count_differences" not in await _shown(net)


async def test_each_stored_difference_is_counted_once(tmp_path: Path) -> None:
    """By who counted more; that delivery and receipt both show it makes it no more."""
    lies = signs(output_tokens=99, prompt_tokens=1)
    async with network(tmp_path, lies) as net:
        metrics = metrics_of(net.gateway)
        shown = await _shown(net)
        stored = await net.gateway.ledger.differences(net.coordinator.only.job.message.job_id)
        text = metrics.exposed().decode()
    assert len(shown["count_differences"]) == len(stored) == 2
    for kind, higher in (("output", "node"), ("prompt", "gateway")):
        labels = f'{{higher="{higher}",kind="{kind}",model="{MODEL}"}}'
        assert f"pinaivu_gateway_count_differences_total{labels} 1.0" in text
    assert text.count("pinaivu_gateway_count_differences_total{") == 2


async def test_counts_within_tolerance_count_nothing(tmp_path: Path) -> None:
    async with network(tmp_path, signs(output_tokens=5)) as net:
        metrics = metrics_of(net.gateway)
        await _shown(net)
        assert "count_differences_total{" not in metrics.exposed().decode()
