"""Manifest and parameters: one spelling, exact members, digests as written down."""

import json
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinaivu.attestation import Binding, binding_of
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import SecretKey
from pinaivu.manifest import (
    Block,
    Manifest,
    Parameters,
    RpcEndpoint,
    local_development_parameters,
)

SIGNING = SecretKey(bytes(31) + b"\1")
PEER = SecretKey(bytes(31) + b"\2")
PARAMETERS = local_development_parameters("http://127.0.0.1:8545")
MANIFEST = Manifest(
    chain_id=31337,
    settlement=b"\x11" * 20,
    receipt_log=b"\x12" * 20,
    enclave_registry=b"\x13" * 20,
    node_registry=b"\x14" * 20,
    model_registry=b"\x15" * 20,
    log_id=b"\x21" * 32,
    code_version="0.1.0",
    signing_key=SIGNING.compressed,
    note_key=b"\x31" * 32,
    peer_key=PEER.compressed,
    parameters_digest=PARAMETERS.digest(),
    block=Block(number=7, hash=b"\x41" * 32),
)
MANIFEST_JSON = (
    '{"block":{"hash":"0x' + "41" * 32 + '","number":7},"chain_id":31337,"code_version":"0.1.0",'
    '"enclave_registry":"0x' + "13" * 20 + '","log_id":"0x' + "21" * 32 + '",'
    '"model_registry":"0x' + "15" * 20 + '","node_registry":"0x' + "14" * 20 + '",'
    '"note_key":"0x' + "31" * 32 + '","parameters_digest":"0x' + PARAMETERS.digest().hex() + '",'
    '"peer_key":"0x' + PEER.compressed.hex() + '","receipt_log":"0x' + "12" * 20 + '",'
    '"settlement":"0x' + "11" * 20 + '","signing_key":"0x' + SIGNING.compressed.hex() + '",'
    '"version":1}'
)
PARAMETER_NAMES = {
    "version",
    "rpc",
    "rpc_agree",
    "finality_blocks",
    "window_ms",
    "live_all",
    "live_best",
    "discount_ppm",
    "warm_ppm",
    "max_uplift_ppm",
    "explore_ppm",
    "value_of_time",
    "max_ranks",
    "offer_ttl_ms",
    "prior_a",
    "prior_b",
    "decay_ppm",
    "party_share_ppm",
    "newcomer_ppm",
    "fee_bps",
    "batch_count",
    "batch_age_ms",
    "batch_value",
    "award_ttl_ms",
    "close_after_delivery_ms",
    "close_after_expiry_ms",
    "unsettled_max_ms",
    "job_skew_ms",
    "claim_ms",
    "epoch_collect_ms",
    "tolerance_tokens",
    "tolerance_ppm",
}


def changed(document: Manifest | Parameters, **changes: Any) -> bytes:
    """The canonical bytes of a document with members replaced (or, by None, taken out)."""
    members = {**json.loads(document.to_jcs()), **changes}
    kept = {name: value for name, value in members.items() if value is not None}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


def test_a_manifest_is_written_as_specified() -> None:
    assert MANIFEST.to_jcs().decode() == MANIFEST_JSON
    assert Manifest.from_jcs(MANIFEST_JSON.encode()) == MANIFEST


def test_digests_are_tagged_hashes_of_the_canonical_bytes() -> None:
    manifest_tag, params_tag = b"pnv1:manifest\0\0\0", b"pnv1:params\0\0\0\0\0"
    assert MANIFEST.digest() == sha256(manifest_tag + MANIFEST_JSON.encode()).digest()
    assert PARAMETERS.digest() == sha256(params_tag + PARAMETERS.to_jcs()).digest()


def test_parameters_have_exactly_the_published_members() -> None:
    assert json.loads(PARAMETERS.to_jcs()).keys() == PARAMETER_NAMES
    assert Parameters.from_jcs(PARAMETERS.to_jcs()) == PARAMETERS


def test_the_local_parameters_are_the_designs() -> None:
    assert (PARAMETERS.window_ms, PARAMETERS.live_all, PARAMETERS.live_best) == (150, 16, 8)
    assert (PARAMETERS.discount_ppm, PARAMETERS.warm_ppm) == (200_000, 0)
    assert PARAMETERS.fee_bps == 250
    assert (PARAMETERS.tolerance_tokens, PARAMETERS.tolerance_ppm) == (2, 10_000)
    assert PARAMETERS.rpc == (RpcEndpoint(url="http://127.0.0.1:8545", tls_root_sha256=bytes(32)),)


def test_the_binding_of_a_manifest_is_key_digest_and_block() -> None:
    assert binding_of(MANIFEST) == Binding(
        public_key=SIGNING.compressed, user_data=MANIFEST.digest(), nonce=b"\x41" * 32
    )


def test_documents_are_frozen() -> None:
    with pytest.raises(AttributeError):
        MANIFEST.chain_id = 1  # type: ignore[misc]


@pytest.mark.parametrize("document", [MANIFEST, PARAMETERS], ids=["manifest", "parameters"])
def test_every_member_is_needed_and_no_other_known(document: Manifest | Parameters) -> None:
    members = json.loads(document.to_jcs())
    for name in members:
        with pytest.raises(InvalidEncoding, match=name):
            type(document).from_jcs(changed(document, **{name: None}))
    with pytest.raises(InvalidEncoding, match="extra"):
        type(document).from_jcs(changed(document, extra=1))


TWO_SERVERS = msgspec.structs.replace(PARAMETERS, rpc=PARAMETERS.rpc * 2)
OTHER_VALUES: dict[str, Any] = {
    "signing_key": SecretKey(bytes(31) + b"\3").compressed,
    "peer_key": SecretKey(bytes(31) + b"\3").compressed,
    "block": Block(number=8, hash=MANIFEST.block.hash),
    "rpc": PARAMETERS.rpc,
    "offer_ttl_ms": 14_999,
}


def another_value(name: str, value: Any) -> Any:
    """A value that the member could have as well."""
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if isinstance(value, bytes):
        return b"\x77" * len(value)
    return value + ("x" if isinstance(value, str) else 1)


@pytest.mark.parametrize("document", [MANIFEST, TWO_SERVERS], ids=["manifest", "parameters"])
def test_every_member_counts_in_the_digest(document: Manifest | Parameters) -> None:
    """But `version`, which has one value only."""
    digests = {document.digest()}
    names = [name for name in document.__struct_fields__ if name != "version"]
    for name in names:
        other = another_value(name, getattr(document, name))
        digests.add(msgspec.structs.replace(document, **{name: other}).digest())
    assert len(digests) == 1 + len(names)


SPELLINGS = {
    "white space": MANIFEST_JSON.replace(":7}", ": 7}"),
    "line feed at the end": MANIFEST_JSON + "\n",
    "members in another order": '{"version":1,' + MANIFEST_JSON[1:].replace(',"version":1', ""),
    "a float": MANIFEST_JSON.replace("31337", "31337.0"),
    "an exponent": MANIFEST_JSON.replace('"chain_id":31337', '"chain_id":1e3'),
    "a small integer as string": MANIFEST_JSON.replace("31337", '"31337"'),
    "a negative integer": MANIFEST_JSON.replace("31337", "-1"),
    "true for one": MANIFEST_JSON.replace('"version":1', '"version":true'),
    "upper-case hex": MANIFEST_JSON.replace("0x" + PEER.compressed.hex(), "0xC6").replace(
        "0xC6", "0x" + PEER.compressed.hex().upper()
    ),
    "hex without 0x": MANIFEST_JSON.replace("0x" + "41" * 32, "41" * 32),
    "an address of 19 bytes": MANIFEST_JSON.replace("11" * 20, "11" * 19),
    "a repeated member": MANIFEST_JSON.replace('"version":1', '"version":1,"version":1'),
    "null": MANIFEST_JSON.replace("31337", "null"),
    "an unknown member inside": MANIFEST_JSON.replace('"number":7', '"number":7,"x":1'),
    "a block that is a list": MANIFEST_JSON.replace('"number":7', '"number":[7]'),
    "a list": f"[{MANIFEST_JSON}]",
    "nothing": "",
    "a code version with a line feed": MANIFEST_JSON.replace("0.1.0", "0.1.0\\n"),
    "an empty code version": MANIFEST_JSON.replace("0.1.0", ""),
    "another version": MANIFEST_JSON.replace('"version":1', '"version":2'),
    "a signing key off the curve": MANIFEST_JSON.replace(
        SIGNING.compressed.hex(), "02" + "00" * 31 + "05"
    ),
    "an uncompressed prefix": MANIFEST_JSON.replace(
        SIGNING.compressed.hex(), "04" + SIGNING.compressed.hex()[2:]
    ),
    "one key in two roles": MANIFEST_JSON.replace(PEER.compressed.hex(), SIGNING.compressed.hex()),
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_any_other_spelling_is_refused(text: str) -> None:
    assert text != MANIFEST_JSON
    with pytest.raises(InvalidEncoding):
        Manifest.from_jcs(text.encode())


SENSELESS = {
    "rpc": (),
    "rpc_agree": 2,
    "live_best": 17,
    "max_ranks": 0,
    "offer_ttl_ms": 15_001,
    "fee_bps": 10_001,
    "discount_ppm": 1_000_001,
    "warm_ppm": 1_000_001,
    "explore_ppm": 1_000_001,
    "decay_ppm": 1_000_001,
    "party_share_ppm": 1_000_001,
    "newcomer_ppm": 1_000_001,
    "batch_count": 0,
    "version": 2,
    "window_ms": -1,
    "live_all": 1 << 32,
    "batch_value": 1 << 96,
    "value_of_time": 1.0,
    "tolerance_tokens": True,
}


@pytest.mark.parametrize(("name", "value"), SENSELESS.items(), ids=SENSELESS.keys())
def test_parameters_that_make_no_sense_cannot_be_made(name: str, value: object) -> None:
    with pytest.raises(InvalidEncoding):
        msgspec.structs.replace(PARAMETERS, **{name: value})


@given(st.integers(min_value=0, max_value=(1 << 96) - 1))
def test_integers_stand_as_numbers_up_to_2_to_53_and_as_strings_above(value: int) -> None:
    document = msgspec.structs.replace(PARAMETERS, batch_value=value)
    written = json.loads(document.to_jcs())["batch_value"]
    assert written == (value if value < 1 << 53 else str(value))
    assert Parameters.from_jcs(document.to_jcs()).batch_value == value


@pytest.mark.parametrize("written", ["9007199254740991", "09007199254740992", "1e20", "-1", ""])
def test_strings_that_should_be_numbers_are_refused(written: str) -> None:
    with pytest.raises(InvalidEncoding, match="batch_value"):
        Parameters.from_jcs(changed(PARAMETERS, batch_value=written))
