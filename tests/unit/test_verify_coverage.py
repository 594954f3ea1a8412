"""docs/bundle-coverage.md, row by row: every field, changed by whoever could, is noticed."""

from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from pinaivu.auction.transcript import CallEntry, Header, Row
from pinaivu.bundles import OPTIONAL, REQUIRED
from pinaivu.codes import Status
from pinaivu.encoding import from_hex, to_hex
from pinaivu.keys import SecretKey
from pinaivu.manifest import Block, Manifest, Parameters, RpcEndpoint
from pinaivu.messages import (
    Award,
    Batch,
    Bid,
    Checkpoint,
    Completion,
    Delivery,
    EpochStart,
    Failure,
    Grant,
    Job,
    Offer,
    Part,
    Receipt,
    Segment,
    Verdict,
)
from pinaivu.settlement import Statement
from pinaivu.testing.bundles import BundleFactory, Json
from pinaivu.testing.lies import Lies
from pinaivu.typed_data import Message, Signed, schema, signed_from_json
from pinaivu.verify import INCOMPLETE, PROVEN, Outcome, Report, Verifier, development
from pinaivu.verify.account import AccountContradiction, check_node, check_payer
from pinaivu.verify.contents import (
    BatchPart,
    Contents,
    EpochPart,
    HolderPart,
    LogPart,
    StatementPart,
)
from pinaivu.verify.recomposed import RECEIPT_FIELDS, SEGMENT_FIELDS
from tests.unit.verify_support import (
    RICH,
    World,
    attest,
    change_document,
    change_message,
    change_packed,
    changed,
    coverage,
    network,
    rich_world,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"
)

MESSAGES: dict[str, tuple[type[Message], Callable[[Json], Json]]] = {
    "Grant": (Grant, lambda d: d["grant"]),
    "Job": (Job, lambda d: d["job"]),
    "Award": (Award, lambda d: d["awards"][1]),
    "Failure": (Failure, lambda d: d["failures"][0]),
    "Completion": (Completion, lambda d: d["completions"][1]),
    "Delivery": (Delivery, lambda d: d["delivery"]),
    "Receipt": (Receipt, lambda d: d["receipt"]),
    "Offer": (Offer, lambda d: d["transcript"]["rows"][0]["offer"]),
    "Bid": (Bid, lambda d: d["transcript"]["calls"][0]["bid"]),
    "Checkpoint": (Checkpoint, lambda d: d["log"]["checkpoint"]),
    "Epoch start": (EpochStart, lambda d: d["log"]["epoch_start"]),
    "Next epoch start": (EpochStart, lambda d: d["log"]["next_epoch_start"]),
    "Batch": (Batch, lambda d: d["batch"]["batch"]),
}
"""Signed messages: section → type, and where one stands in the document."""

INNER: dict[str, tuple[str, str, type[Message]]] = {
    "Part": ("Delivery", "parts", Part),
    "Segment": ("Receipt", "segments", Segment),
}
"""Structs within a signed message: section → outer section, field, type; the last is changed."""

PACKED: dict[str, tuple[Any, Callable[[Json], tuple[Json, str]]]] = {
    "Transcript header": (Header, lambda d: (d["transcript"], "header")),
    "Book row": (Row, lambda d: (d["transcript"]["rows"][0], "row")),
    "Call entry": (CallEntry, lambda d: (d["transcript"]["calls"][0], "entry")),
    "Statement": (Statement, lambda d: (d["batch"]["statements"][0], "entry")),
}
"""Packed layouts: section → type, and the object and member that hold one."""

DOCUMENTS: dict[str, tuple[Any, str]] = {
    "Manifest": (Manifest, "manifest"),
    "Block": (Block, "manifest"),
    "Parameters": (Parameters, "parameters"),
    "Rpc endpoint": (RpcEndpoint, "parameters"),
}

TABLES = coverage()


def plain(section: str) -> list[str]:
    """Fields of the sections that no type of the core describes as a whole."""
    without = {
        "Log": (LogPart, {"checkpoint", "epoch_start", "next_epoch_start"}),
        "Batch part": (BatchPart, {"batch", "statements"}),
        "Statement part": (StatementPart, {"entry"}),
        "Epoch": (EpochPart, {"manifest", "parameters"}),
        "Holder": (HolderPart, set()),
    }
    if section == "Container":
        return ["version", "chain_id", "settlement"]
    if section == "Model card":
        return list(rich_world().made.document["model_card"])
    cls, elsewhere = without[section]
    return [name for name in cls.__struct_fields__ if name not in elsewhere]


def fields_of(section: str) -> list[str]:
    """What a section has to list, from the types."""
    if section in MESSAGES:
        return list(schema(MESSAGES[section][0]).kinds)
    if section in INNER:
        return list(schema(INNER[section][2]).kinds)
    known = PACKED.get(section) or DOCUMENTS.get(section)
    return list(known[0].__struct_fields__) if known else plain(section)


@pytest.mark.parametrize("section", TABLES)
def test_every_field_has_a_row_and_every_row_a_field(section: str) -> None:
    assert set(TABLES[section]) == set(fields_of(section))


def test_every_member_of_a_bundle_is_read_and_has_a_section() -> None:
    """A member that the container allows is one that `Contents` reads, and none is left over."""
    read = set(Contents.__struct_fields__) - {"has_proofs"} | {"proofs", "version"}
    assert read == REQUIRED | OPTIONAL
    sections = {"Container", *MESSAGES, *INNER, *PACKED, *DOCUMENTS, "Log", "Batch part"}
    assert set(TABLES) == sections | {"Statement part", "Epoch", "Model card", "Holder"}


def test_every_field_of_a_receipt_is_compared_by_one_step() -> None:
    for table, cls in ((RECEIPT_FIELDS, Receipt), (SEGMENT_FIELDS, Segment)):
        listed = [name for names in table.values() for name in names]
        assert sorted(listed) == sorted(schema(cls).kinds)


def failed(report: Report) -> set[str]:
    return {step.id for step in report.steps if step.outcome == Outcome.FAILED}


def assert_noticed(report: Report, entry: str) -> None:
    """Exit code and failing steps are what the table says; a bundle unread is noticed too."""
    shown = report.to_text()
    if entry == "lacking":
        assert report.exit_code == INCOMPLETE, shown
        return
    assert report.exit_code not in (PROVEN, INCOMPLETE), shown
    found = failed(report)
    assert found == {"bundle"} or set(entry.split()) <= found, shown


def cases(column: str, sections: Iterable[str]) -> list[Any]:
    return [
        pytest.param(section, name, id=f"{section}-{name}")
        for section in sections
        for name, row in TABLES[section].items()
        if getattr(row, column) != "—"
    ]


def message_at(document: Json, section: str) -> tuple[Json, Signed[Any]]:
    cls, find = MESSAGES[section]
    place = find(document)
    signed = {"message": place["message"], "signature": place["signature"]}
    return place, signed_from_json(cls, signed)


def change(signed: Signed[Any], section: str, name: str) -> Any:
    """The message with a field changed, or a field of its last inner struct."""
    if section not in INNER:
        return change_message(signed.message, name)
    _, outer, _ = INNER[section]
    inner = getattr(signed.message, outer)
    return replace(signed.message, **{outer: (*inner[:-1], change_message(inner[-1], name))})


def test_the_unchanged_bundle_is_proven() -> None:
    world = rich_world()
    assert world.verify(world.document()).exit_code == PROVEN


@pytest.mark.parametrize(("section", "name"), cases("blind", [*MESSAGES, *INNER]))
def test_a_signed_field_changed_blindly_is_noticed(section: str, name: str) -> None:
    world = rich_world()
    document = world.document()
    place, signed = message_at(document, INNER.get(section, (section,))[0])
    message = change(signed, section, name)
    place["message"] = Signed(message, signed.signature).to_json()["message"]
    assert_noticed(world.verify(document), TABLES[section][name].blind)


@pytest.mark.parametrize(("section", "name"), cases("again", [*MESSAGES, *INNER]))
def test_a_signed_field_signed_again_is_noticed(section: str, name: str) -> None:
    world = rich_world()
    document = world.document()
    place, signed = message_at(document, INNER.get(section, (section,))[0])
    key = signer_of(world, section, signed)
    again = Signed.by(key, world.factory.domain, change(signed, section, name))
    place |= again.to_json()
    assert again.signer(world.factory.domain) == signed.signer(world.factory.domain)
    assert_noticed(world.verify(document), TABLES[section][name].again)


def signer_of(world: World, section: str, signed: Signed[Any]) -> SecretKey:
    """The key the table names; of the coordinator the epoch that signed."""
    factory = world.factory
    keys = [factory.parties.payer, factory.parties.gateway]
    keys += [node.key for node in factory.parties.nodes]
    keys += [epoch.key for epoch in factory.epochs.values()]
    by_address = {key.address: key for key in keys}
    key = by_address[signed.signer(factory.domain)]
    row = next(iter(TABLES[section].values()))
    roles = {
        "payer": [factory.parties.payer],
        "gateway": [factory.parties.gateway],
        "node": [node.key for node in factory.parties.nodes],
        "coordinator": [epoch.key for epoch in factory.epochs.values()],
    }
    assert key in roles[row.signer]
    return key


@pytest.mark.parametrize(("section", "name"), cases("blind", PACKED))
def test_a_packed_field_changed_blindly_is_noticed(section: str, name: str) -> None:
    world = rich_world()
    document = world.document()
    cls, find = PACKED[section]
    place, member = find(document)
    place[member] = to_hex(change_packed(cls.from_bytes(from_hex(place[member])), name).to_bytes())
    assert_noticed(world.verify(document), TABLES[section][name].blind)


@pytest.mark.parametrize(
    ("section", "name"), cases("again", [s for s in PACKED if s != "Statement"])
)
def test_a_transcript_field_under_a_newly_signed_receipt_is_noticed(
    section: str, name: str
) -> None:
    """The coordinator changes the transcript and signs a receipt over its new root."""
    world = rich_world()
    document = world.document()
    cls, find = PACKED[section]
    place, member = find(document)
    place[member] = to_hex(change_packed(cls.from_bytes(from_hex(place[member])), name).to_bytes())
    place, signed = message_at(document, "Receipt")
    message = replace(signed.message, bids_root=b"\x01" * 32)
    place |= Signed.by(world.factory.epochs[1].key, world.factory.domain, message).to_json()
    assert_noticed(world.verify(document), TABLES[section][name].again)


def changed_document(document: Json, section: str, name: str) -> Json:
    """The first epoch, with a field of its manifest or parameters changed."""
    part: Json = document["epochs"][0]
    _, member = DOCUMENTS[section]
    value: Any = (Manifest if member == "manifest" else Parameters).from_json(part[member])
    if section == "Block":
        value = replace(value, block=change_document(value.block, name))
    elif section == "Rpc endpoint":
        value = replace(value, rpc=(change_document(value.rpc[0], name),))
    elif TABLES[section][name].blind == "bundle":  # no other value makes a document
        part[member][name] += 1
        return part
    else:
        value = change_document(value, name)
    part[member] = value.to_json()
    return part


@pytest.mark.parametrize(("section", "name"), cases("blind", DOCUMENTS))
def test_an_epochs_field_changed_blindly_is_noticed(section: str, name: str) -> None:
    world = rich_world()
    document = world.document()
    changed_document(document, section, name)
    assert_noticed(world.verify(document), TABLES[section][name].blind)


@pytest.mark.parametrize(("section", "name"), cases("again", DOCUMENTS))
def test_an_epochs_field_attested_anew_is_noticed(section: str, name: str) -> None:
    world = rich_world()
    document = world.document()
    part = changed_document(document, section, name)
    parameters = Parameters.from_json(part["parameters"])
    manifest = Manifest.from_json(part["manifest"])
    if DOCUMENTS[section][1] == "parameters":
        manifest = replace(manifest, parameters_digest=parameters.digest())
    part["manifest"] = manifest.to_json()
    part["document"] = b64encode(attest(manifest)).decode()
    assert_noticed(world.verify(document), TABLES[section][name].again)


def plain_change(document: Json, section: str, name: str) -> None:
    places: dict[str, Json] = {
        "Container": document["chain"] if name != "version" else document,
        "Log": document["log"],
        "Batch part": document["batch"],
        "Statement part": document["batch"]["statements"][0],
        "Epoch": document["epochs"][0],
        "Model card": document["model_card"],
        "Holder": document["holder"],
    }
    place = places[section]
    place[name] = other(place[name], name)


def other(value: Any, name: str) -> Any:
    """Another JSON value of the same form."""
    special: dict[str, Callable[[], Any]] = {
        "verdicts": lambda: [verdict()],
        "files": lambda: [{**value[0], "path": "other"}],
        "request": lambda: {**value, "top_p": 0.5},
        "response": lambda: {"choices": [{**value["choices"][0], "finish_reason": "length"}]},
    }
    if name in special:
        return special[name]()
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return [other(value[0], "a hash"), *value[1:]]
    at = len(value) // 2 if name in ("document", "note") else len(value) - 1
    return value[:at] + ("0" if value[at] != "0" else "1") + value[at + 1 :]


def verdict() -> Json:
    """A verdict signed by nobody in particular."""
    none = bytes(32)
    message = Verdict(
        log_id=none,
        key=bytes(20),
        measurement=none,
        parameters_digest=none,
        manifest_digest=none,
        payload_digest=none,
        block_number=0,
        block_hash=none,
        document_ms=0,
        expires_ms=0,
    )
    return Signed.by(SecretKey(b"\x05" * 32), network().domain, message).to_json()


@pytest.mark.parametrize(
    ("section", "name"),
    cases(
        "blind",
        ["Container", "Log", "Batch part", "Statement part", "Epoch", "Model card", "Holder"],
    ),
)
def test_an_unsigned_field_is_noticed(section: str, name: str) -> None:
    world = rich_world()
    document = world.document()
    plain_change(document, section, name)
    copies = world.made.copies
    if section == "Holder":  # then the bundle's own copies count
        copies = replace(copies, request=None, response=None, salt=None, account_secret=None)
    try:
        report = World(world.factory, replace(world.made, copies=copies), world.verifier).verify(
            document
        )
    except ValueError:
        assert name == "version", "only the container's own version is refused while packing"
        return
    assert_noticed(report, TABLES[section][name].blind)


LIED = {
    "Receipt": "receipt",
    "Segment": "receipt",
    "Award": "award",
    "Transcript header": "header",
    "Completion": "completion",
}


@pytest.mark.parametrize(("section", "name"), cases("start", LIED))
def test_a_signer_that_lies_from_the_start_is_noticed(section: str, name: str) -> None:
    """Receipt, log, batch, anchor and credits all follow from the lie."""

    def lie(value: Any) -> Any:
        if section == "Transcript header":
            return change_packed(value, name)
        if section == "Segment":
            last = change_message(value.segments[-1], name)
            return replace(value, segments=(*value.segments[:-1], last))
        first_award = section == "Award" and value.rank != len(RICH.turns)
        first_completion = section == "Completion" and not value.start_byte
        return value if first_award or first_completion else change_message(value, name)

    factory = network()
    made = factory.make(RICH, Lies(**{LIED[section]: lie}))
    report = Verifier(development(factory.domain), factory.chain).verify(made.raw, made.copies)
    entry = TABLES[section][name].start
    if entry in ("trusted", "own", "disputed"):
        assert report.exit_code == PROVEN, report.to_text()
        disputed = made.served.receipt.message.status == Status.DISPUTED
        assert disputed == (entry == "disputed")
    elif entry == "account":
        with pytest.raises(AccountContradiction):
            check_accounts(factory)
    else:
        assert_noticed(report, entry)


def check_accounts(factory: BundleFactory) -> None:
    """Every party's receipts, as `--account` sees them."""
    receipts = [leaf for leaf in factory.ledger.leaves if isinstance(leaf.message, Receipt)]
    signers = {number: epoch.key.address for number, epoch in factory.epochs.items()}
    check_payer(factory.domain, factory.parties.payer.address, receipts, signers)
    for node in factory.parties.nodes:
        own = [r for r in receipts if any(s.node == node.key.address for s in r.message.segments)]
        check_node(factory.domain, node.key.address, own, signers)


def test_an_honest_networks_accounts_hold() -> None:
    factory = network()
    factory.make(RICH)
    check_accounts(factory)


def test_changed_is_never_the_same() -> None:
    """A mutation that changes nothing would prove nothing."""
    kinds = schema(Job).kinds
    job = message_at(rich_world().document(), "Job")[1].message
    for name, kind in kinds.items():
        assert changed(name, kind, getattr(job, name)) != getattr(job, name)
