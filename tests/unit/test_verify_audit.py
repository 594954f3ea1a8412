"""`audit` over a made-up log: what is true passes, and the first contradiction is named."""

from typing import Any

import pytest
from msgspec.structs import replace

from pinaivu.codes import Role
from pinaivu.messages import Batch, Receipt
from pinaivu.settlement import Statement
from pinaivu.testing.bundles import BundleFactory
from pinaivu.testing.ledger import Settled
from pinaivu.testing.scenarios import SCENARIOS, Scenario
from pinaivu.typed_data import Signed
from pinaivu.verify import development
from pinaivu.verify.account import (
    Account,
    AccountContradiction,
    check_payer,
    require_statements,
)
from pinaivu.verify.audit import Audited, AuditFailed, State, audit
from pinaivu.verify.contents import EpochPart
from tests.unit.verify_support import network

pytestmark = pytest.mark.filterwarnings(
    "ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"
)


def busy() -> BundleFactory:
    """Every scenario once, over two epochs and three batches, the last receipts unsettled."""
    factory = network()
    for number, scenario in enumerate(SCENARIOS.values()):
        factory.serve(scenario)
        if number in (3, 9):
            factory.settle()
        if number == 7:
            factory.start_epoch()
    return factory


def state_of(factory: BundleFactory, **changes: Any) -> State:
    """What an outsider would have fetched."""
    bundles = {
        served.receipt.digest(factory.domain): factory.bundle(served).raw
        for served in factory.served
    }
    state = State(
        log_id=factory.parties.log_id,
        leaves=list(factory.ledger.leaves),
        notes=[note for _, note in factory.ledger.checkpoints],
        batches=[settled.batch for settled in factory.ledger.batches],
        epochs={
            number: EpochPart(
                number=number,
                manifest=epoch.manifest,
                parameters=epoch.parameters,
                document=epoch.document,
                verdicts=(),
            )
            for number, epoch in factory.epochs.items()
        },
        bundles=bundles,
        chain=factory.chain,
    )
    return replace(state, **changes)


def run(factory: BundleFactory, state: State) -> Audited:
    return audit(development(factory.domain), state)


def test_a_true_state_is_proven() -> None:
    factory = busy()
    audited = run(factory, state_of(factory))
    assert audited.receipts == len(SCENARIOS)
    assert audited.leaves == len(SCENARIOS) + 2
    assert (audited.batches, audited.settled) == (2, 2)
    assert audited.unsettled_receipts == len(SCENARIOS) - 10
    assert audited.simulated
    totals = (leaf.message for leaf in factory.ledger.leaves)
    assert audited.billed == sum(m.total for m in totals if isinstance(m, Receipt))


def test_an_empty_log_is_a_true_state() -> None:
    factory = network()
    assert run(factory, state_of(factory)).receipts == 0


def resigned(factory: BundleFactory, batch: Signed[Batch], **changes: Any) -> Signed[Batch]:
    message = replace(batch.message, **changes)
    key = factory.epochs[message.epoch].key
    return Signed.by(key, factory.domain, message)


def without(items: Any, index: int) -> list[Any]:
    return [item for number, item in enumerate(items) if number != index]


def test_a_missing_leaf_is_noticed() -> None:
    factory = busy()
    state = state_of(factory)
    with pytest.raises(AuditFailed, match="leaf 3: payer: expected"):
        run(factory, replace(state, leaves=without(state.leaves, 3)))


def test_leaves_in_another_order_are_noticed() -> None:
    factory = busy()
    state = state_of(factory)
    leaves = [*state.leaves]
    leaves[2], leaves[3] = leaves[3], leaves[2]
    with pytest.raises(AuditFailed, match="leaf 2"):
        run(factory, replace(state, leaves=leaves))


def test_a_leaf_signed_by_an_ended_epoch_is_noticed() -> None:
    factory = busy()
    state = state_of(factory)
    last = state.leaves[-1].message
    assert isinstance(last, Receipt)
    old = Signed.by(factory.epochs[1].key, factory.domain, replace(last, epoch=1))
    with pytest.raises(AuditFailed, match="its epoch"):
        run(factory, replace(state, leaves=[*state.leaves[:-1], old]))


def test_a_second_receipt_of_one_job_is_noticed() -> None:
    factory = busy()
    last = factory.ledger.leaves[-1].message
    assert isinstance(last, Receipt)
    again = Signed.by(factory.epoch.key, factory.domain, last)
    state = state_of(factory)
    with pytest.raises(AuditFailed, match="the job has a receipt already"):
        run(factory, replace(state, leaves=[*state.leaves, again]))


def test_a_receipt_without_its_bundle_is_noticed() -> None:
    factory = busy()
    with pytest.raises(AuditFailed, match="the evidence of leaf 1: there is no bundle"):
        run(factory, state_of(factory, bundles={}))


def test_another_receipts_bundle_is_noticed() -> None:
    factory = busy()
    state = state_of(factory)
    one, other, *_ = state.bundles
    bundles = {**state.bundles, one: state.bundles[other]}
    with pytest.raises(AuditFailed, match="the bundle's receipt"):
        run(factory, replace(state, bundles=bundles))


def test_a_checkpoint_of_another_tree_is_noticed() -> None:
    factory, other = busy(), network()
    for _ in range(2):
        other.serve(Scenario())
    note = other.ledger.checkpoint(other.epoch)[1]
    with pytest.raises(AuditFailed, match="checkpoint 0: the root over 3 leaves"):
        run(factory, state_of(factory, notes=[note]))


def test_a_strangers_checkpoint_is_noticed() -> None:
    factory = busy()
    factory.start_epoch()
    note = factory.ledger.checkpoint(factory.epoch)[1]
    state = state_of(factory, notes=[note])
    epochs = {number: state.epochs[number] for number in (1, 2)}
    state = replace(state, epochs=epochs, leaves=state.leaves[:-1])
    with pytest.raises(AuditFailed, match="no epoch of the log signed it"):
        run(factory, state)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"fees": 1}, "its fees"),
        ({"debits": b""}, "its debits"),
        ({"credits": b""}, "its credits"),
        ({"parties": 9}, "its parties"),
        ({"statement_root": bytes(32)}, "its statement root"),
        ({"new_root": bytes(32)}, "its root"),
        ({"sequence": 2}, "what it follows"),
        ({"time_ms": 1}, "the anchor on chain"),
    ],
)
def test_a_batch_that_is_not_its_leaves_netting_is_noticed(
    changes: dict[str, Any], why: str
) -> None:
    factory = busy()
    state = state_of(factory)
    batches = [resigned(factory, state.batches[0], **changes), *state.batches[1:]]
    with pytest.raises(AuditFailed, match=f"batch 1: {why}"):
        run(factory, replace(state, batches=batches))


def test_a_batch_that_the_log_hides_is_noticed() -> None:
    factory = busy()
    state = state_of(factory)
    with pytest.raises(AuditFailed, match="settled batch 2"):
        run(factory, replace(state, batches=state.batches[:1]))


def test_a_node_credited_too_much_is_noticed() -> None:
    factory = busy()
    node = next(node for node, amount in factory.chain.credits.items() if amount)
    factory.chain.credits[node] += 1
    with pytest.raises(AuditFailed, match="was credited"):
        run(factory, state_of(factory))
    audited = run(factory, state_of(factory, sole_log=False))
    assert audited.settled == 2, "another log may have credited the rest"


def payer_account(factory: BundleFactory) -> Account:
    receipts = [leaf for leaf in factory.ledger.leaves if isinstance(leaf.message, Receipt)]
    signers = {number: epoch.key.address for number, epoch in factory.epochs.items()}
    payer = factory.parties.payer.address
    return check_payer(factory.domain, payer, receipts, signers)


def statements(settled: list[Settled], role: Role) -> list[Statement]:
    return [s for one in settled for s in one.netting.statements if s.role == role]


def test_an_accounts_statements_join() -> None:
    factory = busy()
    account = payer_account(factory)
    found = statements(factory.ledger.batches, Role.PAYER)
    require_statements(account, found)
    with pytest.raises(AccountContradiction, match="does not begin with the first"):
        require_statements(account, found[1:])
    with pytest.raises(AccountContradiction, match="the next begins"):
        require_statements(account, [found[0], replace(found[1], total_from=1)])


def test_a_receipt_missing_below_the_last_statement_is_noticed() -> None:
    factory = busy()
    account = payer_account(factory)
    short = replace(account, running=replace(account.running, counter=3))
    with pytest.raises(AccountContradiction, match="3 given"):
        require_statements(short, statements(factory.ledger.batches, Role.PAYER))


def test_an_account_with_a_gap_is_noticed() -> None:
    factory = busy()
    receipts = [leaf for leaf in factory.ledger.leaves if isinstance(leaf.message, Receipt)]
    signers = {number: epoch.key.address for number, epoch in factory.epochs.items()}
    payer = factory.parties.payer.address
    for broken in (without(receipts, 2), [*receipts, receipts[-1]], receipts[::-1]):
        with pytest.raises(AccountContradiction):
            check_payer(factory.domain, payer, broken, signers)
    with pytest.raises(AccountContradiction, match="no key is known"):
        check_payer(factory.domain, payer, receipts, {1: signers[1]})
    with pytest.raises(AccountContradiction, match="of payer"):
        check_payer(factory.domain, b"\x01" * 20, receipts, signers)
