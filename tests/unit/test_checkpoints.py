"""Checkpoint notes: made, read, verified with both keys, refused in every other form."""

import base64
import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from pinaivu import checkpoints
from pinaivu.checkpoints import CheckpointKeys, CheckpointSigner, Equivocation
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import BadSignature, SecretKey
from pinaivu.messages import Checkpoint
from pinaivu.typed_data import Domain, digest

DOMAIN = Domain(31337, bytes.fromhex("5fbdb2315678afecb367f032d93f642f64180aa3"))
LOG_ID = bytes(range(32))
KEY, OTHER_KEY = SecretKey(b"\x01" * 32), SecretKey(b"\x03" * 32)
SEED, OTHER_SEED = b"\x02" * 32, b"\x04" * 32
CHECKPOINT = Checkpoint(
    log_id=LOG_ID,
    epoch=3,
    size=1_000_001,
    root=hashlib.sha256(b"root").digest(),
    time_ms=1_790_000_000_000,
)
SIGNER = CheckpointSigner(DOMAIN, LOG_ID, KEY, SEED)
NOTE = SIGNER.sign(CHECKPOINT)
ORIGIN = "pinaivu/31337/000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
WITNESS = "\u2014 witness.example/w1 " + base64.b64encode(b"abcd" + bytes(72)).decode() + "\n"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def test_a_note_has_the_bytes_of_the_types_page() -> None:
    """Put together here from the layout alone."""
    body = f"{ORIGIN}\n1000001\n{b64(CHECKPOINT.root)}\n"
    ed25519 = Ed25519PrivateKey.from_private_bytes(SEED)
    public = ed25519.public_key().public_bytes_raw()
    note_id = hashlib.sha256(ORIGIN.encode() + b"\n\x01" + public).digest()[:4]
    typed_id = hashlib.sha256(
        ORIGIN.encode() + b"\n\xff" + b"pinaivu.checkpoint.v1" + KEY.compressed
    ).digest()[:4]
    times = (3).to_bytes(8, "big") + (1_790_000_000_000).to_bytes(8, "big")
    typed = KEY.sign(digest(DOMAIN, CHECKPOINT))
    assert SIGNER.sign(CHECKPOINT) == (
        f"{body}\n"
        f"\u2014 {ORIGIN} {b64(note_id + ed25519.sign(body.encode()))}\n"
        f"\u2014 {ORIGIN} {b64(typed_id + times + typed)}\n"
    )


def test_a_note_is_read_without_being_verified() -> None:
    note = checkpoints.parse_note(NOTE.replace("1000001", "7"))
    assert (note.chain_id, note.log_id, note.size) == (31337, LOG_ID, 7)
    assert note.root == CHECKPOINT.root
    assert note.origin == ORIGIN
    assert [(s.name, len(s.key_id), len(s.payload)) for s in note.signatures] == [
        (ORIGIN, 4, 64),
        (ORIGIN, 4, 81),
    ]


def verify(note: str, keys: CheckpointKeys = SIGNER.keys, domain: Domain = DOMAIN) -> Checkpoint:
    return checkpoints.verify_note(note, domain, LOG_ID, keys).message


def test_a_verified_note_gives_the_signed_checkpoint() -> None:
    signed = checkpoints.verify_note(NOTE, DOMAIN, LOG_ID, SIGNER.keys)
    assert signed.message == CHECKPOINT
    assert signed.signer(DOMAIN) == KEY.address == SIGNER.keys.signer


@pytest.mark.parametrize("size", [0, 1, (1 << 64) - 1])
def test_sizes_of_every_width(size: int) -> None:
    checkpoint = replace(CHECKPOINT, size=size)
    assert verify(SIGNER.sign(checkpoint)) == checkpoint


def test_lines_of_witnesses_are_ignored() -> None:
    body, signatures = NOTE.split("\n\n")
    assert verify(f"{body}\n\n{WITNESS}{signatures}{WITNESS}") == CHECKPOINT


def test_the_order_of_lines_does_not_matter() -> None:
    body, signatures = NOTE.split("\n\n")
    one, other, _ = signatures.split("\n")
    assert verify(f"{body}\n\n{other}\n{one}\n") == CHECKPOINT


def lines_of(note: str) -> list[str]:
    return note.split("\n")


def without(line: int) -> str:
    lines = lines_of(NOTE)
    return "\n".join(lines[:line] + lines[line + 1 :])


def doubled(line: int) -> str:
    lines = lines_of(NOTE)
    return "\n".join([*lines[: line + 1], *lines[line:]])


def with_line(number: int, line: str) -> str:
    lines = lines_of(NOTE)
    return "\n".join([*lines[:number], line, *lines[number + 1 :]])


MALFORMED = {
    "empty": "",
    "no signatures": NOTE.split("\n\n")[0] + "\n\n",
    "no empty line": without(3),
    "two empty lines": doubled(3),
    "no size": without(1),
    "an extension line": doubled(2),
    "no last line feed": NOTE[:-1],
    "a line feed more": NOTE + "\n",
    "carriage returns": NOTE.replace("\n", "\r\n"),
    "a space behind the size": with_line(1, "1000001 "),
    "leading zeros": with_line(1, "01000001"),
    "a sign": with_line(1, "+1000001"),
    "a size beyond 64 bits": with_line(1, str(1 << 64)),
    "arabic digits": with_line(1, "\u0661"),
    "a short root": with_line(2, base64.b64encode(bytes(31)).decode()),
    "a root in hex": with_line(2, bytes(32).hex()),
    "loose base64 bits": with_line(2, "A" * 42 + "B="),
    "another product": with_line(0, ORIGIN.replace("pinaivu", "other")),
    "a chain id with zeros": with_line(0, ORIGIN.replace("31337", "031337")),
    "an upper-case log id": with_line(0, ORIGIN.upper().replace("PINAIVU", "pinaivu")),
    "a short log id": with_line(0, ORIGIN[:-2]),
    "a hyphen for a dash": NOTE.replace("\u2014", "-"),
    "a signature line without a name": with_line(4, "\u2014 AAAAAAAA"),
    "a name with a plus": with_line(4, "\u2014 a+b AAAAAAAA"),
    "a name with a control character": with_line(4, "\u2014 a\x01b AAAAAAAA"),
    "a signature of a key id alone": with_line(4, "\u2014 a AAAAAA=="),
    "a signature in loose base64": with_line(4, "\u2014 a AAAAAAB="),
    "too many signatures": NOTE + WITNESS * 63,
    "too long": NOTE + "\u2014 w " + "A" * 16_384 + "\n",
}


@pytest.mark.parametrize("note", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(InvalidEncoding):
        checkpoints.parse_note(note)


def test_as_many_signatures_as_allowed_are_read() -> None:
    assert len(checkpoints.parse_note(NOTE + WITNESS * 62).signatures) == 64


def signed_by(key: SecretKey, seed: bytes) -> str:
    return CheckpointSigner(DOMAIN, LOG_ID, key, seed).sign(CHECKPOINT)


def line_of(note: str, number: int) -> str:
    return lines_of(note)[number]


def resized(line: int, change: Callable[[bytes], bytes]) -> str:
    prefix, _, payload = line_of(NOTE, line).rpartition(" ")
    changed = base64.b64encode(change(base64.b64decode(payload))).decode()
    return with_line(line, f"{prefix} {changed}")


OTHER_SIZE = SIGNER.sign(replace(CHECKPOINT, size=7))
REFUSED = {
    "another size": with_line(1, "1000002"),
    "another root": with_line(2, base64.b64encode(bytes(32)).decode()),
    "no Ed25519 line": without(4),
    "no EIP-712 line": without(5),
    "two Ed25519 lines": doubled(4),
    "two EIP-712 lines": doubled(5),
    "other keys": signed_by(OTHER_KEY, OTHER_SEED),
    "another Ed25519 key": signed_by(KEY, OTHER_SEED),
    "another signing key": signed_by(OTHER_KEY, SEED),
    "the Ed25519 line of another size": with_line(4, line_of(OTHER_SIZE, 4)),
    "the EIP-712 line of another size": with_line(5, line_of(OTHER_SIZE, 5)),
    "a cut Ed25519 signature": resized(4, lambda raw: raw[:-1]),
    "a cut EIP-712 signature": resized(5, lambda raw: raw[:-1]),
    "a longer EIP-712 signature": resized(5, lambda raw: raw + b"\0"),
    "another log": CheckpointSigner(DOMAIN, bytes(32), KEY, SEED).sign(
        replace(CHECKPOINT, log_id=bytes(32))
    ),
    "another chain": CheckpointSigner(replace(DOMAIN, chain_id=1), LOG_ID, KEY, SEED).sign(
        CHECKPOINT
    ),
    "another settlement": CheckpointSigner(
        replace(DOMAIN, settlement=bytes(20)), LOG_ID, KEY, SEED
    ).sign(CHECKPOINT),
}


@pytest.mark.parametrize("note", REFUSED.values(), ids=REFUSED.keys())
def test_a_note_that_both_keys_did_not_sign_is_refused(note: str) -> None:
    checkpoints.parse_note(note)
    with pytest.raises(BadSignature):
        verify(note)


@pytest.mark.parametrize("length", [5, 12, 84, 86])
def test_an_eip_712_line_of_another_length_is_named(length: int) -> None:
    with pytest.raises(BadSignature, match="not epoch, time and signature"):
        verify(resized(5, lambda raw: raw.ljust(length, b"\0")[:length]))


@pytest.mark.parametrize("line", [4, 5])
def test_every_flipped_bit_of_a_signature_line_is_refused(line: int) -> None:
    length = {4: 4 + 64, 5: 4 + 81}[line]
    for bit in range(length * 8):

        def flip(raw: bytes, bit: int = bit) -> bytes:
            changed = bytearray(raw)
            changed[bit // 8] ^= 1 << bit % 8
            return bytes(changed)

        with pytest.raises(BadSignature):
            verify(resized(line, flip))


def test_another_verifiers_keys_are_refused() -> None:
    for keys in (
        replace(SIGNER.keys, note_key=bytes(32)),
        replace(SIGNER.keys, note_key=b""),
        replace(SIGNER.keys, signing_key=OTHER_KEY.compressed),
    ):
        with pytest.raises(BadSignature):
            verify(NOTE, keys)


def test_a_signer_signs_for_its_own_log_only() -> None:
    with pytest.raises(InvalidEncoding, match="a checkpoint of log 00"):
        SIGNER.sign(replace(CHECKPOINT, log_id=bytes(32)))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidEncoding, match="32 bytes"):
        CheckpointSigner(DOMAIN, LOG_ID, KEY, bytes(length))


def test_a_signer_does_not_show_its_secrets() -> None:
    assert repr(SIGNER) == f"CheckpointSigner({ORIGIN})"


def test_the_verifier_key_is_what_log_tools_take() -> None:
    """`<name>+<key id>+<base64 of 0x01 and the key>`, the id as in the note's first line."""
    name, key_id, encoded = checkpoints.verifier_key(ORIGIN, SIGNER.keys.note_key).split("+", 2)
    assert name == ORIGIN
    assert bytes.fromhex(key_id) == checkpoints.parse_note(NOTE).signatures[0].key_id
    assert base64.b64decode(encoded) == b"\x01" + SIGNER.keys.note_key


def test_two_roots_of_one_size_are_a_fault_whatever_epoch_and_time() -> None:
    other = replace(CHECKPOINT, root=bytes(32))
    for rival in (other, replace(other, epoch=9), replace(other, time_ms=1)):
        with pytest.raises(Equivocation, match="two roots at size 1000001"):
            checkpoints.require_same_history(CHECKPOINT, rival)


def test_what_is_no_equivocation_passes() -> None:
    other = replace(CHECKPOINT, root=bytes(32))
    for rival in (
        replace(CHECKPOINT, epoch=9, time_ms=1),
        replace(other, size=1),
        replace(other, log_id=bytes(32)),
    ):
        checkpoints.require_same_history(CHECKPOINT, rival)


def test_a_note_is_evidence_to_somebody_who_knows_no_key() -> None:
    """The typed checkpoint is found by its form; who signed is left to whoever decides."""
    note = checkpoints.parse_note(NOTE + WITNESS)
    claimed = checkpoints.claimed_checkpoint(note)
    assert claimed == checkpoints.verify_note(NOTE, DOMAIN, LOG_ID, SIGNER.keys)


@pytest.mark.parametrize("times", [0, 2])
def test_a_note_without_one_typed_checkpoint_is_no_evidence(times: int) -> None:
    note = checkpoints.parse_note(NOTE)
    plain, typed = note.signatures
    doubtful = replace(note, signatures=(plain, *[typed] * times))
    with pytest.raises(InvalidEncoding, match=f"{times} lines of epoch"):
        checkpoints.claimed_checkpoint(doubtful)
