"""The verifier over whole bundles of every kind, under both policies, with and without helpers."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from pinaivu.bundles import pack
from pinaivu.errors import TransportFailure
from pinaivu.messages import Award, Receipt
from pinaivu.testing.bundles import BundleFactory, Json, Made
from pinaivu.testing.lies import Lies
from pinaivu.testing.scenarios import SCENARIOS, Scenario, Turn
from pinaivu.typed_data import Domain, Signed
from pinaivu.verify import (
    INCOMPLETE,
    PROVEN,
    REFUTED,
    STEPS,
    Copies,
    Outcome,
    Verifier,
    development,
    strict,
)
from tests.unit.verify_support import RICH, network, rich_world

pytestmark = pytest.mark.filterwarnings(
    "ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"
)


def verify(factory: BundleFactory, made: Made, **changes: Any) -> Any:
    verifier = Verifier(development(factory.domain), factory.chain)
    return verifier.verify(made.raw, replace(made.copies, **changes))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_correct_bundle_is_proven(name: str) -> None:
    factory = network()
    report = verify(factory, factory.make(SCENARIOS[name]))
    assert report.exit_code == PROVEN, report.to_text()
    assert [step.id for step in report.steps] == ["bundle", *STEPS]


@pytest.mark.parametrize(
    ("name", "status", "results"),
    [
        ("live", 1, [0]),
        ("second rank", 1, [10, 0]),
        ("continued", 1, [15, 0]),
        ("passed over", 1, [19, 0]),
        ("client gone", 2, [30]),
        ("all refused", 3, [10, 10, 10]),
        ("unserved", 4, []),
        ("undelivered", 5, [40]),
        ("disputed", 6, [50]),
        ("no completion", 1, [52]),
    ],
)
def test_scenarios_are_what_they_say(name: str, status: int, results: list[int]) -> None:
    """Statuses and results of types.md section 1, so that no case is proven by another's bundle."""
    factory = network()
    receipt = factory.make(SCENARIOS[name]).served.receipt.message
    assert (receipt.status, [s.result for s in receipt.segments]) == (status, results)


def test_a_simulated_attestation_is_said_first_and_last() -> None:
    world = rich_world()
    lines = world.verify(world.document()).to_text().splitlines()
    assert lines[0] == lines[-1] == "SIMULATED, not proven"


def test_strict_refutes_a_simulated_attestation() -> None:
    factory = network()
    made = factory.make(SCENARIOS["live"])
    report = Verifier(strict(factory.domain), factory.chain).verify(made.raw, made.copies)
    assert report.step("V1").outcome == Outcome.FAILED
    assert report.exit_code == REFUTED
    assert "SIMULATED" not in report.to_text().splitlines()[0]


def test_strict_asks_for_all_but_v13() -> None:
    assert strict(Domain(1, bytes(20))).needs == {"bundle", *STEPS} - {"V13"}


def test_development_asks_for_neither_v13_nor_v14() -> None:
    assert development(Domain(1, bytes(20))).needs == {"bundle", *STEPS} - {"V13", "V14"}


def test_v13_is_never_anything_but_not_audited() -> None:
    factory = network()
    report = verify(factory, factory.make(SCENARIOS["live"]))
    assert report.step("V13").outcome == Outcome.NOT_AUDITED


def test_without_a_chain_what_it_alone_can_say_is_lacking() -> None:
    factory = network()
    made = factory.make(SCENARIOS["live"])
    report = Verifier(development(factory.domain)).verify(made.raw, made.copies)
    assert {s.id for s in report.unmet} == {"V2", "V10", "V12"}
    assert report.exit_code == INCOMPLETE
    for step in ("V6", "V7", "V8"):
        assert "not compared with the chain" in report.step(step).evidence


def test_a_chain_that_does_not_answer_leaves_steps_lacking() -> None:
    factory = network()
    made = factory.make(SCENARIOS["live"])

    def unreachable(*_: object) -> None:
        raise TransportFailure("no route to the chain")

    factory.chain.epoch = unreachable  # type: ignore[assignment]
    factory.chain.settlement = unreachable  # type: ignore[assignment]
    report = verify(factory, made)
    assert {s.id for s in report.unmet} == {"V1", "V2", "V12"}
    assert report.exit_code == INCOMPLETE


@pytest.mark.parametrize(
    ("missing", "steps"),
    [
        ("request", {"V4", "V9"}),
        ("response", {"V5", "V9"}),
        ("salt", {"V4", "V5"}),
        ("tokenizer", {"V9"}),
    ],
)
def test_a_copy_that_is_missing_is_named_by_the_steps_that_need_it(
    missing: str, steps: set[str]
) -> None:
    factory = network()
    report = verify(factory, factory.make(SCENARIOS["live"]), **{missing: None})
    assert {step.id for step in report.unmet} == steps
    assert report.exit_code == INCOMPLETE


def test_a_stranger_can_ask_for_all_but_the_holders_steps() -> None:
    factory = network()
    made = factory.make(SCENARIOS["live"])
    policy = development(factory.domain).without_copies()
    report = Verifier(policy, factory.chain).verify(made.raw)
    assert report.exit_code == PROVEN
    assert report.step("V4").outcome == Outcome.LACKING
    assert "without the holder's steps" in report.verdict


def test_a_receipt_that_no_batch_settles_yet_is_incomplete() -> None:
    factory = network()
    made = factory.bundle(factory.serve(Scenario()))
    report = verify(factory, made)
    assert {step.id for step in report.unmet} == {"V10", "V11", "V12"}


@pytest.mark.parametrize("wrong", [Domain(1, b"\x5e" * 20), Domain(31_337, b"\x5f" * 20)])
def test_chain_and_contract_come_from_the_policy(wrong: Domain) -> None:
    factory = network()
    made = factory.make(SCENARIOS["live"])
    report = Verifier(development(wrong), factory.chain).verify(made.raw, made.copies)
    assert [(s.id, s.outcome) for s in report.steps] == [("bundle", Outcome.FAILED)]
    assert report.exit_code == REFUTED


@pytest.mark.parametrize("party", ["gateway", "payer"])
def test_a_party_named_by_the_policy_is_the_only_one(party: str) -> None:
    factory = network()
    made = factory.make(SCENARIOS["live"])
    for address, code in (
        (getattr(made.served.receipt.message, party), PROVEN),
        (b"\x0b" * 20, REFUTED),
    ):
        policy = development(factory.domain, **{party: address})
        report = Verifier(policy, factory.chain).verify(made.raw, made.copies)
        assert report.exit_code == code


OTHER_BODIES: dict[str, Callable[[Json], Json]] = {
    "another question": lambda b: {**b, "messages": [{"role": "user", "content": "else"}]},
    "another temperature": lambda b: {**b, "temperature": 0.6},
    "lower limits than the job's": lambda b: {**b, "pinaivu": {"max_cost_units": 1}},
}


@pytest.mark.parametrize("change", OTHER_BODIES)
def test_another_body_than_the_committed_one_is_refuted(change: str) -> None:
    factory = network()
    made = factory.make(SCENARIOS["live"])
    body = OTHER_BODIES[change](dict(made.copies.request or {}))
    assert "V4" in {s.id for s in verify(factory, made, request=body).failed}


def test_the_streaming_members_of_a_body_are_not_committed_to() -> None:
    factory = network()
    made = factory.make(SCENARIOS["live"])
    body = dict(made.copies.request or {})
    del body["stream"]
    assert verify(factory, made, request=body).exit_code == PROVEN


def test_another_answer_is_refuted_and_a_cut_one_can_not_be_told() -> None:
    for name, outcome in (("live", Outcome.FAILED), ("client gone", Outcome.LACKING)):
        factory = network()
        made = factory.make(SCENARIOS[name])
        response = copy.deepcopy(dict(made.copies.response or {}))
        response["choices"][0]["message"]["content"] += "more "
        assert verify(factory, made, response=response).step("V5").outcome == outcome


def test_more_tokens_billed_than_the_text_has_are_refuted() -> None:
    """Gateway and node together; only the holder's recount notices."""

    class Fewer:
        digest = rich_world().made.copies.tokenizer.digest  # type: ignore[union-attr]

        def count_prompt(self, body: object, kind: object = None) -> int:  # noqa: ARG002
            return 7

        def count_text(self, text: str) -> int:
            return text.count(" ") - 3

    factory = network()
    report = verify(factory, factory.make(SCENARIOS["live"]), tokenizer=Fewer())
    assert [step.id for step in report.failed] == ["V9"]


def test_proofs_that_can_not_be_read_do_not_pass() -> None:
    world = rich_world()
    document = world.document() | {"proofs": {}}
    assert world.verify(document).exit_code == INCOMPLETE


def test_proofs_are_never_needed_where_there_are_none() -> None:
    world = rich_world()
    assert "V14" not in {step.id for step in world.verify(world.document()).unmet}


def test_a_batch_whose_payer_was_short_scales_the_credit() -> None:
    factory = network()
    served = factory.serve(Scenario())
    settled = factory.ledger.settle(factory.epoch)
    factory.chain.settle(settled.batch, backed_ppm=500_000)
    report = verify(factory, factory.bundle(served))
    assert report.exit_code == PROVEN, report.to_text()
    assert "scaled down" in report.step("V12").evidence


@pytest.mark.parametrize("state", ["credits", "payouts"])
def test_a_node_that_was_not_credited_or_paid_elsewhere_is_noticed(state: str) -> None:
    factory = network()
    made = factory.make(SCENARIOS["live"])
    node = made.served.receipt.message.segments[0].node
    if state == "credits":
        factory.chain.credits[node] -= 1
    else:
        (paid,) = factory.chain.payouts[node]
        factory.chain.payouts[node] = [
            type(paid)(
                block=paid.block, wallet=b"\x0d" * 20, registered=paid.wallet, amount=paid.amount
            )
        ]
    assert [step.id for step in verify(factory, made).failed] == ["V12"]


def test_a_book_that_knew_of_a_bond_a_little_late_is_believed() -> None:
    """What was in force shortly before the block is as good as what was at the block."""
    factory = network()
    made = factory.make(SCENARIOS["live"])
    for key, fact in factory.chain.nodes.items():
        lately = frozenset({(fact.payout, fact.bond_funder)})
        factory.chain.nodes[key] = replace(fact, bond_funder=key, lately=lately)
    assert "V7" not in [step.id for step in verify(factory, made).failed]


def _set_epoch(factory: BundleFactory, **changes: Any) -> None:
    for key, fact in factory.chain.epochs.items():
        factory.chain.epochs[key] = replace(fact, **changes)


def _set_payouts(factory: BundleFactory) -> None:
    for key, fact in factory.chain.nodes.items():
        factory.chain.nodes[key] = replace(fact, payout=b"\x0e" * 20)


def _set_funders(factory: BundleFactory) -> None:
    for key, fact in factory.chain.nodes.items():
        factory.chain.nodes[key] = replace(fact, bond_funder=key)


def _set_models(factory: BundleFactory, **changes: Any) -> None:
    for key, fact in factory.chain.models.items():
        factory.chain.models[key] = replace(fact, **changes)


def _set_anchors(factory: BundleFactory) -> None:
    factory.chain.anchors |= dict.fromkeys(factory.chain.anchors, bytes(32))


CHAINS: dict[str, tuple[Callable[[BundleFactory], None], str]] = {
    "epoch of another key": (lambda f: _set_epoch(f, key=b"\x01" * 20), "V2"),
    "epoch of another manifest": (lambda f: _set_epoch(f, manifest_digest=bytes(32)), "V2"),
    "another document": (lambda f: _set_epoch(f, payload_digest=bytes(32)), "V1"),
    "other code": (lambda f: _set_epoch(f, measurement=bytes(32)), "V1"),
    "other parameters": (lambda f: _set_epoch(f, parameters_digest=bytes(32)), "V1"),
    "code allowed too late": (lambda f: _set_epoch(f, pair_allowed_from_ms=1 << 60), "V1"),
    "code revoked before": (lambda f: _set_epoch(f, pair_revoked_at_ms=1), "V1"),
    "epoch expired": (lambda f: _set_epoch(f, expires_at_ms=1), "V2"),
    "epoch revoked": (lambda f: _set_epoch(f, revoked_at_ms=1), "V2"),
    "epoch activated later": (lambda f: _set_epoch(f, activated_at_ms=1 << 60), "V2"),
    "no such epoch": (lambda f: f.chain.epochs.clear(), "V2"),
    "nodes not registered": (lambda f: f.chain.nodes.clear(), "V6"),
    "another wallet then": (_set_payouts, "V7"),
    "another bond then": (_set_funders, "V7"),
    "another price ratio then": (lambda f: _set_models(f, ratio_ppm=1), "V7"),
    "another fingerprint then": (lambda f: _set_models(f, fingerprint=bytes(32)), "V7"),
    "grants revoked": (lambda f: f.chain.grant_epochs.update({f.parties.payer.address: 1}), "V8"),
    "another anchor": (
        lambda f: f.chain.anchors.update(dict.fromkeys(f.chain.anchors, bytes(32))),
        "V10",
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_that_says_otherwise_refutes(name: str) -> None:
    change, step = CHAINS[name]
    factory = network()
    made = factory.make(SCENARIOS["live"])
    change(factory)
    assert step in {s.id for s in verify(factory, made).failed}


LISTS: dict[str, Callable[[Json], Any]] = {
    "awards": lambda d: d["awards"],
    "completions": lambda d: d["completions"],
    "failures": lambda d: d["failures"],
    "calls": lambda d: d["transcript"]["calls"],
    "rows": lambda d: d["transcript"]["rows"],
    "statements": lambda d: d["batch"]["statements"],
    "epochs": lambda d: d["epochs"],
}


def _swap(entries: list[Any]) -> None:
    entries[0], entries[1] = entries[1], entries[0]


@pytest.mark.parametrize("name", LISTS)
def test_an_entry_left_out_is_noticed(name: str) -> None:
    world = rich_world()
    document = world.document()
    del LISTS[name](document)[0]
    assert world.verify(document).exit_code != PROVEN


@pytest.mark.parametrize("name", LISTS)
def test_an_entry_twice_is_noticed(name: str) -> None:
    world = rich_world()
    document = world.document()
    entries = LISTS[name](document)
    entries.append(entries[0])
    assert world.verify(document).exit_code == REFUTED


@pytest.mark.parametrize("name", sorted(set(LISTS) - {"failures"}))
def test_entries_in_another_order_are_noticed(name: str) -> None:
    world = rich_world()
    document = world.document()
    _swap(LISTS[name](document))
    assert world.verify(document).exit_code == REFUTED


@pytest.mark.parametrize("member", ["delivery", "transcript", "batch", "model_card"])
def test_a_member_left_out_is_noticed(member: str) -> None:
    world = rich_world()
    document = world.document()
    del document[member]
    assert world.verify(document).exit_code != PROVEN


def test_the_next_epochs_start_can_not_be_left_out() -> None:
    world = rich_world()
    document = world.document()
    del document["log"]["next_epoch_start"]
    report = world.verify(document)
    assert report.step("V2").outcome == Outcome.LACKING


def test_a_leaf_of_an_epoch_that_had_ended_is_refuted() -> None:
    """The old epoch's key signs a receipt after the new epoch's first leaf."""
    factory = network()
    factory.serve(Scenario())
    ended = factory.epoch
    factory.start_epoch()
    factory.epochs[3] = factory.epochs.pop(1)  # the old key, as if it were the newest
    served = factory.serve(Scenario(), Lies(receipt=lambda r: replace(r, epoch=1)))
    factory.epochs[1] = factory.epochs.pop(3)
    assert served.receipt.signer(factory.domain) == ended.key.address
    factory.settle()
    report = verify(factory, factory.bundle(served))
    assert "V2" in {step.id for step in report.failed}


@pytest.mark.parametrize("signer", [1, 2])
def test_a_superseded_receipt_is_signed_by_the_earlier_epoch_it_names(signer: int) -> None:
    """The first epoch's receipt was lost with its database; the second signed it anew."""
    factory = network()
    factory.start_epoch()
    former: list[Signed[Receipt]] = []

    def supersede(receipt: Receipt) -> Receipt:
        key = factory.epochs[signer].key
        former.append(Signed.by(key, factory.domain, replace(receipt, epoch=1)))
        return replace(receipt, supersedes=former[0].digest(factory.domain))

    served = factory.serve(Scenario(), Lies(receipt=supersede))
    factory.settle()
    document = factory.document(served)
    verifier = Verifier(development(factory.domain), factory.chain)
    copies = factory.copies(served)
    whole = verifier.verify(pack(document | {"superseded": former[0].to_json()}), copies)
    assert whole.exit_code == (PROVEN if signer == 1 else REFUTED), whole.to_text()
    assert verifier.verify(pack(document), copies).step("V2").outcome == Outcome.FAILED


@pytest.mark.parametrize("name", ["live", "unserved", "beyond limits"])
def test_a_job_of_an_ended_epoch_is_receipted_by_the_next(name: str) -> None:
    """Auction, award and fee follow the epoch that held the auction; the leaf is the signer's."""
    factory = network()

    def restart(receipt: Receipt) -> Receipt:
        factory.start_epoch()
        return replace(receipt, epoch=2)

    served = factory.serve(SCENARIOS[name], Lies(receipt=restart))
    assert served.receipt.signer(factory.domain) == factory.epochs[2].key.address
    factory.settle()
    report = verify(factory, factory.bundle(served))
    assert report.exit_code == PROVEN, report.to_text()
    document = factory.document(served)
    document["epochs"] = [part for part in document["epochs"] if part["number"] != 1]
    without = Verifier(development(factory.domain), factory.chain).verify(
        pack(document), factory.copies(served)
    )
    assert without.exit_code == (REFUTED if name == "live" else INCOMPLETE)


LATE_MS = 280_000
FIRST_AWARDS: dict[str, Callable[[Award], Award]] = {
    "voids another": lambda a: replace(a, prior=b"\x01" * 32),
    "begins within the text": lambda a: replace(a, start_byte=1),
    "outlives the deadline": lambda a: replace(
        a, awarded_ms=a.awarded_ms + LATE_MS, expires_ms=a.expires_ms + LATE_MS
    ),
}


@pytest.mark.parametrize("name", FIRST_AWARDS)
def test_a_first_award_that_can_not_be_is_refuted(name: str) -> None:
    factory = network()
    made = factory.make(SCENARIOS["live"], Lies(award=FIRST_AWARDS[name]))
    assert "V6" in {step.id for step in verify(factory, made).failed}


def test_a_segment_that_was_paid_without_a_completion_is_refuted() -> None:
    def pay(receipt: Receipt) -> Receipt:
        (segment,) = receipt.segments
        paid = replace(segment, amount=1, node_total=segment.node_total + 1)
        total = receipt.payer_total + 1
        return replace(receipt, total=1, payer_total=total, segments=(paid,))

    factory = network()
    made = factory.make(SCENARIOS["no completion"], Lies(receipt=pay))
    assert {"V6", "V8"} <= {step.id for step in verify(factory, made).failed}


def test_an_award_of_a_later_epoch_than_its_receipt_is_refuted() -> None:
    factory = network()
    factory.start_epoch()
    served = factory.serve(Scenario(), Lies(receipt=lambda r: replace(r, epoch=1)))
    factory.settle()
    report = verify(factory, factory.bundle(served))
    assert "of a later epoch than the receipt" in report.step("V6").evidence


def test_a_report_is_json_with_every_step() -> None:
    world = rich_world()
    shown = json.loads(json.dumps(world.verify(world.document()).to_json()))
    assert shown["exit_code"] == PROVEN
    assert shown["simulated"] is True
    assert [step["id"] for step in shown["steps"]] == ["bundle", *STEPS]


def test_turns_of_one_scenario_cover_every_kind_of_turn() -> None:
    played = {turn for scenario in SCENARIOS.values() for turn in scenario.turns}
    assert played == set(Turn)
    assert set(RICH.turns) < played


def test_the_holders_copies_may_come_with_the_bundle() -> None:
    world = rich_world()
    copies = Copies(tokenizer=world.made.copies.tokenizer)
    assert world.verifier.verify(world.made.raw, copies).exit_code == PROVEN
