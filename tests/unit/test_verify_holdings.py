"""All of a hosted key's receipts together, and what a single one says of whom it covers."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from pinaivu.bundles import pack
from pinaivu.commitments import account_of
from pinaivu.messages import Job, Receipt
from pinaivu.testing.bundles import BundleFactory, Served
from pinaivu.testing.lies import TRUTH, Lies
from pinaivu.testing.scenarios import Scenario
from pinaivu.typed_data import Signed
from pinaivu.verify import Outcome, Report, Verifier, development
from pinaivu.verify.account import AccountContradiction, check_sub_account
from pinaivu.verify.contents import Contents, read_contents
from pinaivu.verify.holdings import Book, reckon
from tests.unit.verify_support import network

pytestmark = pytest.mark.filterwarnings(
    "ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"
)

MINE = Scenario(with_account=True)
OTHERS = Scenario()
SECRET = b"\x5e" * 32
"""As `pinaivu.testing.requests` draws it."""
PROMISED = 10**9


def served(factory: BundleFactory, *scenarios: Scenario, lies: Lies = TRUTH) -> list[Served]:
    """Requests in this order, settled; those of the sub-account."""
    done = [factory.serve(scenario, lies) for scenario in scenarios]
    factory.settle()
    mine = zip(done, scenarios, strict=True)
    return [one for one, scenario in mine if scenario.with_account]


def contents(factory: BundleFactory, mine: Sequence[Served]) -> list[Contents]:
    return [read_contents(factory.bundle(one, with_holder=True).document) for one in mine]


def books(factory: BundleFactory, mine: Sequence[Served], limit: int | None = None) -> list[Book]:
    return reckon(factory.domain, contents(factory, mine), limit=limit)


def report(factory: BundleFactory, one: Served, **copies: object) -> Report:
    made = factory.bundle(one)
    verifier = Verifier(development(factory.domain), factory.chain)
    return verifier.verify(pack(made.document), replace(made.copies, **copies))


def test_a_holders_receipts_have_no_gap_and_lie_under_their_statements() -> None:
    """Others' requests on the same wallet in between don't show in the account's counters."""
    factory = network()
    mine = served(factory, MINE, OTHERS, MINE)
    mine += served(factory, OTHERS, MINE)
    (book,) = books(factory, mine, PROMISED)
    total = sum(one.receipt.message.total for one in mine)
    assert (book.receipts, book.total, book.settled, book.fault) == (3, total, 3, "")
    assert "sub-account" in book.to_text()


@pytest.mark.parametrize("missing", [0, 1])
def test_a_receipt_kept_from_the_holder_is_a_gap(missing: int) -> None:
    factory = network()
    mine = served(factory, MINE, MINE, MINE)
    (book,) = books(factory, [one for n, one in enumerate(mine) if n != missing])
    assert "expected Running" in book.fault
    assert "FAILED" in book.to_text()


def test_a_last_receipt_kept_from_the_holder_shows_in_the_statement() -> None:
    factory = network()
    mine = served(factory, MINE, MINE)
    (book,) = books(factory, mine[:1])
    assert "goes to receipt 2, 1 given" in book.fault


def test_a_receipt_given_twice_is_a_repeat() -> None:
    factory = network()
    mine = served(factory, MINE, MINE)
    (book,) = books(factory, [*mine, mine[-1]])
    assert book.fault


def test_a_request_put_under_another_account_is_no_longer_the_holders() -> None:
    """V4 of that bundle refutes it, and what is left of the account doesn't name it."""
    factory = network()

    def elsewhere(job: Job) -> Job:
        return replace(job, account=account_of(factory.parties.payer.address, b"\x01" * 32))

    (one,) = served(factory, MINE, lies=Lies(job=elsewhere))
    assert report(factory, one).step("V4").outcome == Outcome.FAILED
    assert "the sub-account" in report(factory, one).step("V4").evidence
    (book,) = books(factory, [one])
    assert not book.whose.secret


def test_a_limit_above_the_promised_one_is_refuted() -> None:
    factory = network()
    (one,) = served(factory, MINE)
    said = one.receipt.message.account_limit
    assert report(factory, one, account_limit=said).step("V8").outcome == Outcome.PASSED
    step = report(factory, one, account_limit=said - 1).step("V8")
    assert step.outcome == Outcome.FAILED
    assert f"{said - 1} was promised" in step.evidence
    (book,) = books(factory, [one], said - 1)
    assert "above the limit" in book.fault


def test_a_receipt_without_the_promised_account_is_refuted() -> None:
    factory = network()
    one = factory.serve(OTHERS)
    factory.settle()
    step = report(factory, one, account_limit=5).step("V8")
    assert (step.outcome, "names no sub-account" in step.evidence) == (Outcome.FAILED, True)


@pytest.mark.parametrize("step", ["V8", "V11"])
def test_steps_say_whom_they_cover(step: str) -> None:
    """The account with its secret, the gateway's wallet only without it, a wallet as a whole."""
    factory = network()
    hosted, own = factory.serve(MINE), factory.serve(OTHERS)
    factory.settle()
    assert "for your sub-account" in report(factory, hosted).step(step).evidence
    blind = report(factory, hosted, account_secret=None).step(step).evidence
    assert "for the gateway's wallet only" in blind
    payer = factory.parties.payer.address
    assert f"for the wallet 0x{payer.hex()}" in report(factory, own).step(step).evidence
    made = factory.bundle(own)
    mine = Verifier(development(factory.domain, payer=payer), factory.chain)
    said = mine.verify(made.raw, made.copies).step(step).evidence
    assert f"for your wallet 0x{payer.hex()}" in said


def test_another_accounts_receipt_is_refused() -> None:
    factory = network()
    (one,) = served(factory, MINE)
    signers = {number: epoch.key.address for number, epoch in factory.epochs.items()}
    payer, receipts = factory.parties.payer.address, [one.receipt]
    check_sub_account(factory.domain, payer, SECRET, receipts, signers)
    with pytest.raises(AccountContradiction, match="of another account"):
        check_sub_account(factory.domain, payer, b"\x01" * 32, receipts, signers)


def test_an_account_above_its_own_limit_is_refused() -> None:
    factory = network()

    def short(receipt: Receipt) -> Receipt:
        return replace(receipt, account_limit=receipt.account_total - 1)

    receipts: list[Signed[Receipt]] = [factory.serve(MINE, Lies(receipt=short)).receipt]
    signers = {number: epoch.key.address for number, epoch in factory.epochs.items()}
    payer = factory.parties.payer.address
    with pytest.raises(AccountContradiction, match="above the limit"):
        check_sub_account(factory.domain, payer, SECRET, receipts, signers)
