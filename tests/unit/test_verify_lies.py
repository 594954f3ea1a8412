"""Lies told from the start, one for each predicate: the step that reads it says what is wrong.

Whoever signs lies before signing and everything after that follows, so no digest and no signature
gives it away: what is refuted here is refuted by the predicate itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from pinaivu.bundles import pack
from pinaivu.codes import Mode, Reason
from pinaivu.encoding import to_hex
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Delivery, Receipt
from pinaivu.testing.bundles import BundleFactory
from pinaivu.testing.lies import TRUTH, Lies
from pinaivu.testing.scenarios import SCENARIOS, Scenario, Turn
from pinaivu.testing.sources import SpaceCounter
from pinaivu.typed_data import Signed, digest
from pinaivu.verify import Outcome, Verifier, development
from tests.unit.verify_support import RICH, network

pytestmark = pytest.mark.filterwarnings(
    "ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"
)

LIVE = SCENARIOS["live"]
NOBODY = SCENARIOS["unserved"]
ELSEWHERE = b"\x0e" * 20
OTHER = b"\x0e" * 32


class Told(NamedTuple):
    """A lie, the step that must notice, and what it must say."""

    lies: Lies
    step: str
    evidence: str
    scenario: Scenario = LIVE


def to(**changes: Any) -> Callable[[Any], Any]:
    """A lie that sets fields."""
    return lambda message: replace(message, **changes)


def by(**steps: int) -> Callable[[Any], Any]:
    """A lie that moves numbers."""
    return lambda m: replace(m, **{name: getattr(m, name) + step for name, step in steps.items()})


def last_part(**changes: Any) -> Callable[[Delivery], Delivery]:
    """A delivery whose last part says something else."""
    return lambda d: replace(d, parts=(*d.parts[:-1], replace(d.parts[-1], **changes)))


def terms(**members: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A body with its own terms for the market."""
    return lambda body: {**body, "pinaivu": members}


def _cut_within(delivery: Delivery) -> Delivery:
    """The first part ends after one byte of the two of "ö"; the second begins there."""
    first, second = delivery.parts
    return replace(delivery, parts=(replace(first, end_byte=2), replace(second, start_byte=2)))


NO_AUCTION = to(nonce=bytes(32), bids_root=bytes(32), bids=0, reason=int(Reason.EPOCH_ENDED))

TOLD: dict[str, Told] = {
    # V3: what names what
    "a part about another completion": Told(
        Lies(delivery=last_part(completion_digest=OTHER)), "V3", "names another completion"
    ),
    # V4: what the body demands
    "another model": Told(Lies(job=to(model="x")), "V4", "the job's model", NOBODY),
    "other features": Told(Lies(job=by(features=1)), "V4", "the job's features", NOBODY),
    "fewer tokens": Told(Lies(job=by(max_output_tokens=-1)), "V4", "the job's output limit"),
    "a higher price": Told(Lies(body=terms(max_price_out=1)), "V4", "the job's max_price_out"),
    "a higher cost": Told(Lies(body=terms(max_cost_units=1)), "V4", "the job's max_cost_units"),
    "another patience": Told(Lies(body=terms(value_of_time=1)), "V4", "the job's value of time"),
    "another auction": Told(Lies(body=terms(auction="standing")), "V4", "the job's auction mode"),
    "other weights": Told(
        Lies(body=terms(fingerprint="0x" + OTHER.hex())), "V4", "the job's fingerprint"
    ),
    "nodes not allowed": Told(
        Lies(body=terms(allow=["0x" + ELSEWHERE.hex()])), "V4", "the job's allow list"
    ),
    "nodes denied": Told(
        Lies(body=terms(deny=["0x" + ELSEWHERE.hex()])), "V4", "the job's deny list"
    ),
    "no kind of job": Told(Lies(job=to(kind=9)), "V4", "9 is no kind of job"),
    # V5: what the gateway says the client got
    "another response": Told(
        Lies(delivery=to(response_commitment=OTHER)), "V5", "the commitment to the response"
    ),
    "another segment": Told(
        Lies(delivery=last_part(segment_commitment=OTHER)), "V5", "the commitment to segment 1"
    ),
    "a longer segment": Told(
        Lies(delivery=last_part(end_byte=9_999)), "V5", "the end of the last segment"
    ),
    "a gap before a segment": Told(
        Lies(delivery=last_part(start_byte=1)), "V5", "the start of segment 1"
    ),
    "a segment that runs backwards": Told(
        Lies(delivery=last_part(end_byte=0)), "V5", "segment 2 ends before it starts", RICH
    ),
    "a cut within a character": Told(
        Lies(failure=to(end_byte=2), delivery=_cut_within), "V5", "cut within", RICH
    ),
    # V6: awards, completions, failures
    "a failure without a reason": Told(
        Lies(failure=to(reason=9)), "V6", "9 is no reason for a failure", RICH
    ),
    "a failure unlike its part": Told(
        Lies(failure=by(output_tokens=1)), "V6", "what a failure says beside the delivery", RICH
    ),
    "text left out between ranks": Told(
        Lies(award=lambda a: replace(a, start_byte=a.start_byte + 1) if a.rank > 1 else a),
        "V6",
        "the start of award 2",
        Scenario(turns=(Turn.BROKEN, Turn.UNSIGNED)),
    ),
    # V7: the auction
    "other weights than demanded": Told(
        Lies(job=to(fingerprint=OTHER)), "V7", "the fingerprint the job demands"
    ),
    "M beyond the limit": Told(Lies(header=to(expected_tokens=129)), "V7", "M is above"),
    "closed before it opened": Told(
        Lies(header=by(open_ms=5)), "V7", "the auction closed before it opened"
    ),
    "calls in a standing auction": Told(
        Lies(job=to(mode=int(Mode.STANDING))), "V7", "the nodes called are not those"
    ),
    "an epoch yet to come": Told(Lies(header=by(epoch=1)), "V7", "the epoch of an award"),
    "somebody could have served": Told(TRUTH, "V7", "a node was left", Scenario(turns=())),
    "unserved for another reason": Told(
        Lies(receipt=to(reason=2)), "V7", "the reason why nobody served", SCENARIOS["unserved"]
    ),
    "beyond limits for another": Told(
        Lies(receipt=to(reason=1)), "V7", "the reason why nobody", SCENARIOS["beyond limits"]
    ),
    "a deadline yet to come": Told(
        Lies(receipt=to(reason=4)), "V7", "the deadline had not passed", SCENARIOS["unserved"]
    ),
    "an epoch that goes on": Told(
        Lies(receipt=to(reason=5)), "V7", "the epoch had not ended", SCENARIOS["unserved"]
    ),
    "served without an auction": Told(
        Lies(receipt=NO_AUCTION), "V7", "a receipt without an auction"
    ),
    "an auction kept quiet": Told(
        Lies(receipt=NO_AUCTION), "V7", "a transcript of an auction", SCENARIOS["unserved"]
    ),
    # V8: limits of job and grant
    "another gateway's grant": Told(Lies(grant=to(gateway=ELSEWHERE)), "V8", "the grant's gateway"),
    "another log's grant": Told(Lies(grant=to(log_id=OTHER)), "V8", "the grant's log"),
    "a model not granted": Told(
        Lies(grant=to(models=("x",))), "V8", "the grant does not name model"
    ),
    "a grant run out": Told(Lies(grant=to(not_after_ms=1)), "V8", "the grant was not valid"),
    "a grant not begun": Told(Lies(grant=to(not_before_ms=1 << 60)), "V8", "was not valid"),
    "a day's cap exceeded": Told(Lies(grant=to(max_per_day=1)), "V8", "the day's total"),
    "the cap exceeded": Told(Lies(grant=to(max_total=1)), "V8", "the grant's total"),
    "a limit above the grant's": Told(
        Lies(job=to(max_price_in=10**6 + 1)), "V8", "the job's max_price_in"
    ),
    "a price above the limit": Told(
        Lies(award=to(price_out=10**6 + 1)), "V8", "award 1's price_out"
    ),
    "a sub-account exhausted": Told(
        Lies(job=to(account_limit=1)), "V8", "the sub-account's total", SCENARIOS["sub-account"]
    ),
    "a job of yesterday": Told(Lies(job=by(created_ms=-61_000)), "V8", "the job was created at"),
    "closed before received": Told(
        Lies(receipt=by(closed_ms=-200_000)), "V8", "closed before it was received"
    ),
    "a rank without an anchor": Told(
        Lies(job=lambda j: replace(j, anchors=j.anchors[:1])), "V8", "no anchor for rank 2", RICH
    ),
    "acknowledgements not held": Told(
        Lies(completion=by(acks=1)), "V8", "acknowledgement 4 does not lead"
    ),
    # V9: what was counted
    "a prompt counted double": Told(Lies(job=by(prompt_tokens=50)), "V9", "the prompt has"),
    # V10, V11: batches and statements
    "a batch that begins later": Told(Lies(batch=by(prev_size=3)), "V10", "is outside [3, 4)"),
    "another debit": Told(Lies(batch=to(debits=b"")), "V11", "the row of"),
    "a fee too many": Told(Lies(batch=by(fees=1)), "V11", "the sum of the batch's debits"),
    "a statement that begins later": Told(
        Lies(statement=by(counter_from=2)), "V11", "is outside the statement"
    ),
    "a statement that ends earlier": Told(
        Lies(statement=by(counter_to=-2)), "V11", "is outside the statement"
    ),
    "totals that begin later": Told(Lies(statement=by(total_from=10)), "V11", "running total"),
    "totals that end earlier": Told(Lies(statement=by(total_to=-20)), "V11", "running total"),
    "a first total of nobody": Told(
        Lies(statement=by(counter_from=1)), "V11", "the total before the first receipt"
    ),
    "a last total of nobody": Told(
        Lies(statement=by(counter_to=-1)), "V11", "the total after the last receipt"
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_lie_is_refuted_by_the_step_that_reads_it(name: str) -> None:
    told = TOLD[name]
    factory = network()
    made = factory.make(told.scenario, told.lies)
    report = Verifier(development(factory.domain), factory.chain).verify(made.raw, made.copies)
    step = report.step(told.step)
    assert step.outcome == Outcome.FAILED, report.to_text()
    assert told.evidence in step.evidence


def test_a_job_whose_epoch_ended_before_its_auction_has_none() -> None:
    """Nothing of an auction is on the receipt then, and nothing is missed."""
    factory = network()
    served = factory.serve(SCENARIOS["unserved"], Lies(receipt=NO_AUCTION))
    factory.settle()
    document = factory.document(served)
    del document["transcript"]
    report = _verify(factory, document, served)
    assert report.step("V7").outcome == Outcome.PASSED, report.to_text()


def test_no_auction_for_another_reason_than_the_epochs_end_is_refuted() -> None:
    factory = network()

    def lie(receipt: Receipt) -> Receipt:
        silent: Receipt = NO_AUCTION(receipt)
        return replace(silent, reason=int(Reason.NO_NODES_AVAILABLE))

    served = factory.serve(SCENARIOS["unserved"], Lies(receipt=lie))
    document = factory.document(served)
    del document["transcript"]
    step = _verify(factory, document, served).step("V7")
    assert "why no auction was held" in step.evidence


SETTLED: dict[str, tuple[dict[str, Any], str]] = {
    "another batch": ({"batch_digest": OTHER}, "what the chain settled"),
    "another sum": ({"due": 1, "backed": 1}, "what was due on chain"),
    "other fees": ({"fees": 99}, "the fees on chain"),
    "less debited": ({"debited": 0}, "what was debited"),
}


@pytest.mark.parametrize("name", SETTLED)
def test_a_chain_that_settled_something_else_refutes_v12(name: str) -> None:
    changes, evidence = SETTLED[name]
    factory = network()
    made = factory.make(LIVE)
    for key, fact in factory.chain.settlements.items():
        factory.chain.settlements[key] = replace(fact, **changes)
    report = Verifier(development(factory.domain), factory.chain).verify(made.raw, made.copies)
    assert evidence in report.step("V12").evidence


def test_a_node_that_registered_after_its_award_is_refuted() -> None:
    factory = network()
    made = factory.make(LIVE)
    for key, fact in factory.chain.nodes.items():
        factory.chain.nodes[key] = replace(fact, registered_at_ms=1 << 60)
    report = Verifier(development(factory.domain), factory.chain).verify(made.raw, made.copies)
    assert "registered after it was awarded" in report.step("V6").evidence


def test_payouts_that_do_not_add_up_to_the_credit_are_refuted() -> None:
    factory = network()
    made = factory.make(LIVE)
    node = made.served.receipt.message.segments[0].node
    true = factory.chain.earnings(node)
    factory.chain.earnings = lambda _: replace(true, credit=1)  # type: ignore[method-assign,assignment]
    report = Verifier(development(factory.domain), factory.chain).verify(made.raw, made.copies)
    assert "payouts and credit of" in report.step("V12").evidence


def test_statements_of_strangers_have_no_place_in_a_bundle() -> None:
    factory = network()
    served = factory.serve(LIVE)
    factory.serve(RICH)
    factory.settle()
    document, settled = factory.document(served), factory.ledger.batches[0]
    statements = settled.netting.statements
    tree = Tree(leaf_hash(entry.to_bytes()) for entry in statements)
    document["batch"]["statements"] = [
        {
            "entry": to_hex(entry.to_bytes()),
            "index": number,
            "inclusion": [to_hex(h) for h in tree.inclusion_proof(number, len(statements))],
        }
        for number, entry in enumerate(statements)
    ]
    assert "the number of statements" in _verify(factory, document, served).step("V11").evidence


FORMER: dict[str, tuple[dict[str, Any], str]] = {
    "of the same epoch": ({"epoch": 2}, "of an earlier epoch"),
    "of another job": ({"job_id": b"\x01" * 16}, "the former job"),
    "not the one named": ({"total": 7}, "what the receipt supersedes"),
}


@pytest.mark.parametrize("name", FORMER)
def test_a_superseded_receipt_that_can_not_be_is_refuted(name: str) -> None:
    changes, evidence = FORMER[name]
    factory = network()
    factory.start_epoch()
    former: list[Signed[Receipt]] = []

    def supersede(receipt: Receipt) -> Receipt:
        old = replace(receipt, epoch=1)
        named = old if name == "not the one named" else replace(old, **changes)
        former.append(Signed.by(factory.epochs[1].key, factory.domain, replace(old, **changes)))
        return replace(receipt, supersedes=digest(factory.domain, named))

    served = factory.serve(LIVE, Lies(receipt=supersede))
    factory.settle()
    document = factory.document(served) | {"superseded": former[0].to_json()}
    assert evidence in _verify(factory, document, served).step("V2").evidence


def test_parameters_of_every_epoch_are_its_manifests() -> None:
    """Also of the epoch that only signed the checkpoint."""
    factory = network()
    served = factory.serve(LIVE)
    factory.settle()
    factory.start_epoch()
    document = factory.document(served)
    document["epochs"][1]["parameters"]["window_ms"] += 1
    assert "epoch 2's parameters" in _verify(factory, document, served).step("V1").evidence


def test_another_models_tokenizer_is_refused() -> None:
    class Foreign(SpaceCounter):
        digest = OTHER

    factory = network()
    made = factory.make(LIVE)
    verifier = Verifier(development(factory.domain), factory.chain)
    report = verifier.verify(made.raw, replace(made.copies, tokenizer=Foreign()))
    assert "the tokenizer's digest" in report.step("V9").evidence


SIGNED: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "receipt": (lambda d: d["receipt"], "V3"),
    "grant": (lambda d: d["grant"], "V3"),
    "job": (lambda d: d["job"], "V3"),
    "award": (lambda d: d["awards"][0], "V3"),
    "completion": (lambda d: d["completions"][0], "V3"),
    "failure": (lambda d: d["failures"][0], "V3"),
    "delivery": (lambda d: d["delivery"], "V3"),
    "offer": (lambda d: d["transcript"]["rows"][0]["offer"], "V7"),
    "bid": (lambda d: d["transcript"]["calls"][0]["bid"], "V7"),
    "epoch start": (lambda d: d["log"]["epoch_start"], "V2"),
    "checkpoint": (lambda d: d["log"]["checkpoint"], "V10"),
    "batch": (lambda d: d["batch"]["batch"], "V10"),
}


@pytest.mark.parametrize("name", SIGNED)
def test_another_signature_is_refuted_though_no_digest_changes(name: str) -> None:
    """A valid signature of somebody else stands in its place."""
    find, step = SIGNED[name]
    factory = network()
    made = factory.make(RICH)
    document = made.document
    signature = find(document)["signature"]
    find(document)["signature"] = "0x" + "11" * 64 + signature[-2:]
    report = _verify(factory, document, made.served)
    assert report.step(step).outcome == Outcome.FAILED, report.to_text()


def _verify(factory: BundleFactory, document: dict[str, Any], served: Any) -> Any:
    verifier = Verifier(development(factory.domain), factory.chain)
    return verifier.verify(pack(document), factory.copies(served))
