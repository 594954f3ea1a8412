"""Finding: what a text in the search box means, lists a page at a time, the log over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from explorer.config import load_config
from explorer.formats import amount, duration, moment, reason, request_id, second, status
from explorer.pieces import Mark, join, link, mark, table, tag
from explorer.search import find
from explorer.sources import HttpLog, LogUnavailable, NotThere
from pinaivu.errors import Misconfigured
from pinaivu.keys import checksum
from pinaivu.testing.parties import MODEL
from pinaivu.testing.scenarios import Scenario, Turn
from tests.unit.explorer_support import Indexed, served_log
from tests.unit.test_explorer_following import TX, advance, follow, settled_event


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Indexed]:
    made = Indexed(tmp_path_factory.mktemp("indexed"))
    made.serve(3)
    made.serve(1, Scenario(turns=(Turn.REFUSED, Turn.SERVED)))
    settled = made.factory.settle()
    made.fill(60)
    made.catch_up()
    follow(made, advance(9, settled_event(made.factory, settled, 9)))
    yield made
    made.database.close()


def test_a_request_id_has_its_page_known_or_not(indexed: Indexed) -> None:
    """In any spelling of a UUID."""
    wanted = "01a2014d-c89f-714e-aeb2-587aafeab715"
    for text in (wanted, f"  {wanted.upper()} ", wanted.replace("-", "")):
        assert find(text, indexed.reader) == [{"request": wanted}]


def test_an_address_is_found_in_each_of_its_roles(indexed: Indexed) -> None:
    parties = indexed.factory.parties
    served = indexed.factory.served[0].receipt.message.segments[0].node
    for kind, address in (
        ("payer", parties.payer.address),
        ("gateway", parties.gateway.address),
        ("node", served),
    ):
        full = checksum(address)
        for text in (full, full.lower(), full[2:]):
            assert find(text, indexed.reader) == [{kind: full}]


def test_hashes_lead_to_transaction_receipt_and_batch(indexed: Indexed) -> None:
    factory = indexed.factory
    receipt = factory.served[0].receipt
    shown = request_id(receipt.message.job_id)
    expected = [{"request": shown, "gateway": checksum(receipt.message.gateway)}]
    assert find("0x" + TX.hex(), indexed.reader) == [{"tx": "0x" + TX.hex()}]
    assert find("0x" + receipt.digest(factory.domain).hex(), indexed.reader) == expected
    batch = factory.ledger.batches[0].batch.digest(factory.domain)
    assert find(batch.hex(), indexed.reader) == [{"batch": "1"}]


@pytest.mark.parametrize("text", ["12", "#12", "batch 12", "Batch #12", "012"])
def test_a_number_is_a_batch(indexed: Indexed, text: str) -> None:
    assert find(text, indexed.reader) == [{"batch": "12"}]


@pytest.mark.parametrize("text", ["", "hello", "0x12", "0x" + "77" * 20, "77" * 32, "<b>"])
def test_what_is_not_known_is_not_found(indexed: Indexed, text: str) -> None:
    assert find(text, indexed.reader) == []


def test_lists_are_whole_when_paged_through(indexed: Indexed) -> None:
    """Every receipt once, newest first, also for one party."""
    node = indexed.reader.busiest("node")[0].key
    filters: list[dict[str, bytes]] = [{}, {"payer": indexed.factory.parties.payer.address}]
    filters.append({"node": node})
    for chosen in filters:
        positions: list[int] = []
        before = None
        while page := indexed.reader.receipts(before=before, **chosen):  # type: ignore[arg-type]
            assert len(page) <= 25
            positions += [listed.row.position for listed in page]
            before = positions[-1]
        assert positions == sorted(set(positions), reverse=True)
        due = indexed.reader.running("node", node) if "node" in chosen else None
        assert len(positions) == (due.counter if due else 64)


def test_a_node_that_only_refused_lists_that_receipt_too(indexed: Indexed) -> None:
    segments = indexed.factory.served[3].receipt.message.segments
    refused, served = segments[0].node, segments[1].node
    assert indexed.reader.receipts(node=refused)
    row = indexed.reader.request(indexed.factory.served[3].receipt.message.job_id)[0].row
    assert row.node == served


def test_a_settled_total_is_the_running_total_at_the_anchor(indexed: Indexed) -> None:
    payer = indexed.factory.parties.payer.address
    settled = indexed.factory.served[3].receipt.message
    size = indexed.reader.settling().size
    assert indexed.reader.settled_total("payer", payer, size) == settled.payer_total
    node = settled.segments[1]
    assert indexed.reader.settled_total("node", node.node, size) == node.node_total
    assert indexed.reader.settled_total("node", bytes(20), size) == 0


def test_the_log_is_read_over_its_public_routes(indexed: Indexed) -> None:
    receipt = indexed.factory.served[0].receipt.message
    with served_log(indexed.factory, indexed.folder) as log:
        (found,) = log.receipts(UUID(bytes=receipt.job_id))
        assert found["index"] == 1
        assert log.receipts(UUID(int=1)) == []
        assert log.bundle(receipt.gateway, UUID(bytes=receipt.job_id)).startswith(b"PNVBNDL")
        assert log.market() == {MODEL: 3}
        with pytest.raises(NotThere):
            log.bundle(receipt.gateway, UUID(int=1))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(200, content=b"{"),
        httpx.Response(200, json={"epochs": 1}),
        httpx.Response(200, json={"epochs": [1]}),
    ],
)
def test_an_unusable_answer_is_the_logs_unavailability(answer: httpx.Response) -> None:
    client = httpx.Client(transport=httpx.MockTransport(lambda _: answer))
    with pytest.raises(LogUnavailable):
        HttpLog("http://log", client).epochs()


def test_text_from_outside_is_escaped() -> None:
    """A model called like a script stays a text, in cells, links and tooltips."""
    name = '<script>"x"</script>'
    for shown in (
        table(["a"], [[name]]),
        link(name, name, node=name),
        mark(Mark.BAD, name),
        tag("b", join("a", name)),
    ):
        assert "<script" not in shown
        assert '"x"' not in shown


def test_values_are_written_exactly() -> None:
    assert amount(1) == "0.000001"
    assert amount(1_234_567_000_001) == "1,234,567.000001"
    assert amount(-5) == "−0.000005"
    assert moment(1_795_318_209_007) == "2026-11-22 03:30:09.007 UTC"
    assert (moment(0), second(0)) == ("–", "–")
    assert [duration(ms) for ms in (0, 999, 1_500, 90_000, 7_200_000, 172_800_000)] == [
        "0 ms",
        "999 ms",
        "1.50 s",
        "1.5 min",
        "2.0 h",
        "2.0 d",
    ]
    assert (reason(0), reason(15), reason(99)) == ("", "stream broken", "reason 99")
    assert (status(4), status(99)) == ("nobody could serve it", "status 99")


@pytest.mark.parametrize(
    "text", ["", "{", "{}", '{"port": 0}', '{"log_url": 1}'], ids=lambda text: text or "empty"
)
def test_a_wrong_configuration_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "explorer.json"
    path.write_text(text)
    with pytest.raises(Misconfigured, match=r"explorer\.json"):
        load_config(path)
    with pytest.raises(Misconfigured, match="can't be read"):
        load_config(tmp_path / "none.json")
