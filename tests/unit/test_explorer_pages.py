"""The pages as a reader gets them: run by Streamlit's own test driver over a made-up network.

Only the chain is a stand-in; log, index, verification and pages are the real ones.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from explorer.config import Config
from explorer.formats import request_id
from explorer.site import Site
from explorer.sources import LogUnavailable
from pinaivu.bundles import pack
from pinaivu.chain.errors import ChainUnavailable
from pinaivu.chain.records import ModelRecord, NodeCredit, NodeRecord, PayerState
from pinaivu.encoding import to_hex
from pinaivu.keys import SecretKey, checksum
from pinaivu.messages import Job
from pinaivu.store.explorer import ProgressRow
from pinaivu.testing.bundles import BundleFactory
from pinaivu.testing.lies import Lies
from pinaivu.testing.parties import CARD, RATIO_PPM
from pinaivu.testing.scenarios import SCENARIOS, Scenario
from pinaivu.verify import Verifier, development
from tests.unit.explorer_support import Indexed, Tampered, served_log
from tests.unit.test_explorer_following import TX, advance, follow, settled_event
from tests.unit.verify_support import attest

pytestmark = pytest.mark.filterwarnings(
    "ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"
)
_TAGS = re.compile(r"<[^>]+>")


class StandInChain:
    """The chain client's reads, from the made-up network's chain facts."""

    def __init__(self, indexed: Indexed) -> None:
        self._facts = indexed.factory.chain
        self.deployment = SimpleNamespace(chain_id=indexed.factory.domain.chain_id)
        self.answers = True

    def node_credits(self, nodes: list[bytes]) -> list[NodeCredit]:
        """Credit and lifetime of nodes."""
        self._require()
        found = (self._facts.earnings(node) for node in nodes)
        return [NodeCredit(earned.credit, earned.lifetime) for earned in found]

    def node(self, node: bytes) -> NodeRecord | None:
        """A registered node."""
        self._require()
        fact = self._facts.node(node)
        point = SecretKey(b"\x07" * 32).point
        return NodeRecord(node, fact.payout, bytes(20), 0, 1_000, point) if fact else None

    def payer(self, payer: bytes) -> PayerState:
        """A payer that never withdrew."""
        self._require()
        return PayerState(payer, bytes(32), 10**9, 0, 0, 0, bytes(32), 0, 0)

    def gateway(self, _gateway: bytes) -> None:
        """No gateway is registered."""
        self._require()

    def model(self, _model: str) -> ModelRecord:
        """The one model."""
        self._require()
        return ModelRecord(CARD.fingerprint, CARD.tokenizer_digest, RATIO_PPM, 8192)

    def _require(self) -> None:
        if not self.answers:
            raise ChainUnavailable("the chain is asleep")


class MadeUpSite(Site):
    """A site whose verifier asks the made-up chain."""

    symbol = "TUSD"

    def verifier(self) -> Verifier:
        """Over the stand-in's facts."""
        return Verifier(self.policy, self.client._facts)  # type: ignore[attr-defined]


class Pages:
    """Pages of one indexed network."""

    def __init__(self, indexed: Indexed, log: Any) -> None:
        self.indexed, self.log = indexed, Tampered(log)
        self.chain = StandInChain(indexed)
        self.index()
        config = Config(
            log_url="http://log",
            rpc="http://chain",
            deployment="deployment.json",
            log_id=to_hex(indexed.factory.parties.log_id),
            database="",
            port=1,
        )
        policy = development(indexed.factory.domain).without_copies()
        self.site = MadeUpSite(config, indexed.reader, self.log, self.chain, policy)  # type: ignore[arg-type]

    def index(self) -> None:
        """Take in the log, and the settlement of its batches in block 9."""
        self.indexed.catch_up(self.log.honest)
        factory = self.indexed.factory
        events = [settled_event(factory, settled, 9) for settled in factory.ledger.batches]
        follow(self.indexed, *(advance(9, replace_index(e, i)) for i, e in enumerate(events)))

    def text(self, **query: str) -> str:
        """What a page says, its markup taken out."""
        return unescape(" ".join(_TAGS.sub(" ", self.html(**query)).split()))

    def html(self, **query: str) -> str:
        """A page's own markup."""
        app = AppTest.from_function(_script, args=(self.site, query), default_timeout=60)
        app.run()
        assert not app.exception, app.exception
        return "\n".join(element.proto.body for element in app.get("html"))


def replace_index(event: Any, index: int) -> Any:
    """The same event at another place of its block."""
    values = {name: getattr(event, name) for name in event.__slots__}
    return type(event)(**values | {"log_index": index})


def _script(site: object, query: dict[str, str]) -> None:
    from explorer.app import header, show  # noqa: PLC0415 - Streamlit runs this very source

    if query.pop("header", ""):
        header(site, query)  # type: ignore[arg-type]
    show(site, query)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Indexed]:
    made = Indexed(tmp_path_factory.mktemp("pages"))
    for scenario in SCENARIOS.values():
        made.serve(1, scenario)
    made.factory.settle()
    yield made
    made.database.close()


@pytest.fixture(scope="module", autouse=True)
def scanned_once() -> Iterator[None]:
    """Streamlit looks through all installed packages for components; its test driver, each run."""
    with pytest.MonkeyPatch.context() as patch:
        scan = cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture
def pages(indexed: Indexed) -> Iterator[Pages]:
    with served_log(indexed.factory, indexed.folder) as log:
        yield Pages(indexed, log)


def _id(indexed: Indexed, scenario: str) -> str:
    number = list(SCENARIOS).index(scenario)
    return request_id(indexed.factory.served[number].receipt.message.job_id)


def test_the_first_line_says_who_when_model_tokens_cost_and_block(pages: Pages) -> None:
    """It stands before everything else, each fact with its step and mark."""
    receipt = pages.indexed.factory.served[0].receipt.message
    html = pages.html(request=_id(pages.indexed, "live"))
    assert html.startswith('<div class="pnv-first"')
    said = unescape(" ".join(_TAGS.sub(" ", html.split("\n")[0]).split()))
    node = checksum(receipt.segments[0].node)
    due = (
        rf"Who served it {node[:8]}…{node[-6:]} ✓ V6 When [-\d]+ [:\d]+ UTC ✓ V2 "
        r"Model made-up-model \? V13 Tokens \d+ in · 70 out \? V9 Cost 0\.\d{6} TUSD ✓ V8 "
        r"Settled in block 9 ✓ V10 Attestation SIMULATED V1"
    )
    assert re.fullmatch(due, said), said


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_kind_of_request_has_a_page_without_a_refuted_step(
    pages: Pages, scenario: str
) -> None:
    text = pages.text(request=_id(pages.indexed, scenario))
    for step in range(1, 15):
        assert f" V{step} " in text
    assert "✗ " not in text.replace("✗ refuted,", "")
    assert "SIMULATED proven under development, without the holder's steps" in text
    for section in ("Check it yourself", "Auction", "Timeline", "Segments", "Settlement"):
        assert section in text


def test_a_bundle_that_does_not_hold_is_refuted_in_the_first_line(pages: Pages) -> None:
    """The log serves a bundle whose completion was changed: who and cost are refuted."""
    served = pages.indexed.factory.served[0]
    document = pages.indexed.factory.document(served)
    completion = document["completions"][0]["message"]
    completion["outputTokens"] += 1
    pages.log.lies["bundle"] = pack(document)
    html = pages.html(request=_id(pages.indexed, "live"))
    first = html.split("\n")[0]
    assert 'class="pnv-mark bad"' in first
    assert "refuted: V3" in unescape(_TAGS.sub("", html))


def test_another_requests_bundle_is_not_taken_for_this_one(pages: Pages) -> None:
    other = pages.indexed.factory.bundle(pages.indexed.factory.served[1]).raw
    pages.log.lies["bundle"] = other
    text = pages.text(request=_id(pages.indexed, "live"))
    assert "✗ Refuted: the log's bundle holds another receipt than its leaf." in text
    first = pages.html(request=_id(pages.indexed, "live")).split("\n")[0]
    assert 'class="pnv-mark ok"' not in first


def test_without_the_log_nothing_is_called_verified(pages: Pages) -> None:
    pages.log.lies["bundle"] = LogUnavailable("nobody there")
    html = pages.html(request=_id(pages.indexed, "live"))
    first = html.split("\n")[0]
    assert 'class="pnv-mark ok"' not in first
    assert first.count('class="pnv-mark lacks"') == 7
    assert "the log did not give the bundle: nobody there" in html


def test_an_unknown_request_says_what_to_do(pages: Pages) -> None:
    text = pages.text(request="01a2014d-c89f-714e-aeb2-587aafeab715")
    assert "No receipt with this id is known here. The log does not have it either." in text
    assert "reload this page" in text
    assert "is no request id" in pages.text(request="hello")


def test_a_shared_request_id_is_a_choice(pages: Pages) -> None:
    """With the gateway named there is none."""
    receipt = pages.indexed.factory.served[0].receipt.message
    shown = request_id(receipt.job_id)
    listed = pages.indexed.reader.request(receipt.job_id)
    setattr(pages.site.reader, "request", lambda _: listed * 2)  # noqa: B010 - only here
    try:
        assert "Several gateways used this id" in pages.text(request=shown)
    finally:
        delattr(pages.site.reader, "request")
    gateway = checksum(receipt.gateway)
    assert "Who served it" in pages.text(request=shown, gateway=gateway)
    assert "No receipt" in pages.text(request=shown, gateway=checksum(bytes(20)))


def test_the_overview_says_whether_everything_is_settled(pages: Pages) -> None:
    text = pages.text()
    assert f"✓ Everything is settled: all {len(SCENARIOS)} receipts lie in blocks." in text
    assert "made-up-model 3 8,192 25.00 %" in text
    node = pages.indexed.reader.busiest("node")[0]
    earned = int(node.total)
    assert f"{node.counter} 0.{earned:06d} 0.{earned:06d} 0.{earned:06d} 0.000000" in text


def test_a_node_page_compares_receipts_and_chain(pages: Pages) -> None:
    node = pages.indexed.reader.busiest("node")[0]
    text = pages.text(node=checksum(node.key))
    assert f"✓ Settled receipts and chain agree: 0.{int(node.total):06d} credited." in text
    pages.chain._facts.credits[node.key] += 1
    try:
        assert "✗ The settled receipts add up to" in pages.text(node=checksum(node.key))
    finally:
        pages.chain._facts.credits[node.key] -= 1
    pages.chain.answers = False
    assert "? The chain does not answer: the chain is asleep" in pages.text(node=to_hex(node.key))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"node": "0x" + "77" * 20}, "What you can do"),
        ({"payer": "nobody"}, "as payer"),
        ({"batch": "99"}, "This log has no batch 99 yet"),
        ({"batch": "x"}, "This log has no batch x yet"),
        ({"tx": "0x12"}, "No event of this network's contracts"),
        ({"tx": "0x" + "77" * 32}, "No event of this network's contracts"),
        ({"q": "<script>"}, "Nothing is known under '<script>'."),
    ],
)
def test_what_is_unknown_is_said_with_the_next_step(
    pages: Pages, query: dict[str, str], said: str
) -> None:
    assert said in pages.text(**query)


def test_batch_and_transaction_pages_name_each_other(pages: Pages) -> None:
    batch = pages.html(batch="1")
    assert f"tx=0x{TX.hex()}" in batch
    assert "the chain settled this very batch" in batch
    assert "BatchSettled" in pages.text(tx="0x" + TX.hex())
    assert "batch 1" in pages.text(tx="0x" + TX.hex())


def test_payer_gateway_and_list_pages_are_there(pages: Pages) -> None:
    parties = pages.indexed.factory.parties
    assert "Charged, TUSD" in pages.text(payer=checksum(parties.payer.address))
    gateway = pages.text(gateway=checksum(parties.gateway.address))
    assert "The gateway registry does not know it" in gateway
    assert "Requests" in pages.text(list="receipts")
    assert "batch 1" in pages.text(list="batches")


def test_a_receipt_that_does_not_hold_is_marked_everywhere(tmp_path: Path) -> None:
    """On the overview, its own page and its payer's."""
    indexed = Indexed(tmp_path)
    lie: Callable[[Any], Any] = lambda r: replace(r, payer_total=r.payer_total + 1)  # noqa: E731
    served = indexed.factory.serve(Scenario(), Lies(receipt=lie))
    with served_log(indexed.factory, tmp_path) as log:
        pages = Pages(indexed, log)
        assert "✗ 1 of 1 receipts do not hold" in pages.text()
        shown = pages.text(request=request_id(served.receipt.message.job_id))
        assert "✗ In the log: counters or totals don't follow" in shown
        payer = checksum(indexed.factory.parties.payer.address)
        assert "✗ 1 of its receipts do not hold" in pages.text(payer=payer)
    indexed.database.close()


def test_a_refuted_log_is_said_on_every_page(pages: Pages) -> None:
    with pages.indexed.database.begin() as session:
        row = ProgressRow(task="log", fault="two histories", refuted=True, fault_ms=1)
        session.merge(row)
    try:
        assert "✗ The log was refuted: two histories" in pages.text(header="1")
    finally:
        with pages.indexed.database.begin() as session:
            session.delete(session.get_one(ProgressRow, "log"))


CROWD = 300


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Indexed]:
    """A small auction and a large one; in each the job is too dear for the dearest nodes."""
    factory = BundleFactory(attest=attest, nodes=CROWD)
    made = Indexed(tmp_path_factory.mktemp("crowd"), factory)
    for nodes in (10, CROWD):
        made.factory.serve(Scenario(nodes=nodes), Lies(job=dear))
    made.factory.settle()
    yield made
    made.database.close()


def dear(job: Job) -> Job:
    """Some of the nodes' prices are above this limit."""
    return replace(job, max_price_out=170_000)


@pytest.fixture
def crowd(crowded: Indexed) -> Iterator[Pages]:
    with served_log(crowded.factory, crowded.folder) as log:
        yield Pages(crowded, log)


def _of(indexed: Indexed, number: int) -> str:
    return request_id(indexed.factory.served[number].receipt.message.job_id)


def test_an_auction_shows_every_offer_and_what_became_of_it(crowd: Pages) -> None:
    """The winner's price, who set it, and each node's own row."""
    text = crowd.text(request=_of(crowd.indexed, 0))
    assert "10 eligible offers, 10 nodes called, 10 bids" in text
    assert text.count("sets the price") == 1
    for party in crowd.indexed.factory.parties.nodes[:10]:
        node = checksum(party.key.address)
        assert f"{node[:8]}…{node[-6:]}" in text


def test_a_large_auction_is_read_from_its_book_a_page_at_a_time(crowd: Pages) -> None:
    """V7 passes; a page of offers is shown, and any node is found with its reason."""
    nodes = [party.key.address for party in crowd.indexed.factory.parties.nodes]
    query = {"request": _of(crowd.indexed, 1)}
    app = AppTest.from_function(_script, args=(crowd.site, dict(query)), default_timeout=60).run()
    assert not app.exception
    (offers,) = app.selectbox
    assert offers.options[0] == f"1–25 of {CROWD}"
    assert offers.options[-1] == f"276–{CROWD} of {CROWD}"

    def table() -> str:
        (found,) = (e.proto.body for e in app.get("html") if "Busy / slots" in e.proto.body)
        return unescape(" ".join(_TAGS.sub(" ", found).split()))

    def shown(node: bytes) -> bool:
        return f"{checksum(node)[:8]}…{checksum(node)[-6:]}" in table()

    assert (shown(nodes[0]), shown(nodes[-1])) == (True, False)
    offers.select(offers.options[-1])
    app.run()
    assert (shown(nodes[0]), shown(nodes[-1])) == (False, True)
    assert "output price above limit" in table()
    app.text_input[0].set_value(to_hex(nodes[0])).run()
    assert shown(nodes[0])
    assert not shown(nodes[1])
    app.text_input[0].set_value("0x" + "07" * 20).run()
    assert "no such node in this book" in table()


def test_without_its_book_a_large_auction_is_not_shown(crowd: Pages) -> None:
    crowd.log.lies["book"] = LogUnavailable("nobody there")
    text = crowd.text(request=_of(crowd.indexed, 1))
    assert "The auction can't be shown: needs the book's rows" in text
