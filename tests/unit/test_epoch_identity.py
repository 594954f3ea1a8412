"""The handover from boot to coordinator: whole, consistent, read once, and silent about secrets."""

import json
import os
import pickle
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from pinaivu.encoding import jcs
from pinaivu.epoch_identity import MAX_HANDOVER_BYTES, EpochIdentity, note_public
from pinaivu.errors import InvalidEncoding, TransportFailure
from pinaivu.keys import SecretKey
from tests.unit.test_manifest import MANIFEST, PARAMETERS, PEER, SIGNING

NOTE = b"\x09" * 32
IDENTITY = EpochIdentity(
    signing_secret=SIGNING,
    note_secret=NOTE,
    peer_secret=PEER,
    manifest=msgspec.structs.replace(MANIFEST, note_key=note_public(NOTE)),
    parameters=PARAMETERS,
    document=b"\x84document\xff",
)


def pipe_with(content: bytes) -> int:
    read_end, write_end = os.pipe()
    os.write(write_end, content)
    os.close(write_end)
    return read_end


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4) + body


def test_what_is_written_is_read_back() -> None:
    found = EpochIdentity.read_from_fd(pipe_with(IDENTITY.to_bytes()))
    assert found.signing_secret.secret == SIGNING.secret
    assert found.peer_secret.secret == PEER.secret
    assert (found.note_secret, found.document) == (NOTE, IDENTITY.document)
    assert (found.manifest, found.parameters) == (IDENTITY.manifest, PARAMETERS)


def test_the_descriptor_is_closed_afterwards() -> None:
    fd = pipe_with(IDENTITY.to_bytes())
    EpochIdentity.read_from_fd(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_an_ed25519_key_is_the_one_of_rfc_8032() -> None:
    """Test 1 of its section 7.1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert note_public(seed).hex() == public


def test_no_secret_shows() -> None:
    shown = repr(IDENTITY) + str(IDENTITY)
    for secret in (SIGNING.secret, PEER.secret, NOTE):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
    with pytest.raises(TypeError):
        pickle.dumps(IDENTITY)


STRANGER = SecretKey(b"\7" * 32)
OTHER_SECRETS: dict[str, Any] = {
    "signing_secret": STRANGER,
    "peer_secret": STRANGER,
    "note_secret": STRANGER.secret,
}


@pytest.mark.parametrize("name", OTHER_SECRETS)
def test_another_secret_than_the_manifests_is_refused(name: str) -> None:
    with pytest.raises(InvalidEncoding, match="secrets"):
        replace(IDENTITY, **{name: OTHER_SECRETS[name]})


def test_other_parameters_than_the_manifests_are_refused() -> None:
    other = msgspec.structs.replace(PARAMETERS, fee_bps=0)
    with pytest.raises(InvalidEncoding, match="parameters"):
        replace(IDENTITY, parameters=other)


@pytest.mark.parametrize("kept", [0, 3, 4, 100])
def test_a_boot_that_ended_early_is_a_transport_failure(kept: int) -> None:
    with pytest.raises(TransportFailure, match="ended before"):
        EpochIdentity.read_from_fd(pipe_with(IDENTITY.to_bytes()[:kept]))


def test_no_pipe_at_all_says_how_to_start() -> None:
    fd = pipe_with(b"")
    os.close(fd)
    with pytest.raises(TransportFailure, match=r"enclave\.simulator"):
        EpochIdentity.read_from_fd(fd)


MEMBERS: dict[str, Any] = json.loads(IDENTITY.to_bytes()[4:])
FOREIGN = {
    "bytes behind it": IDENTITY.to_bytes() + b"\0",
    "a length beyond the limit": (MAX_HANDOVER_BYTES + 1).to_bytes(4),
    "no JSON": framed(b"{"),
    "a list": framed(b"[]"),
    "an unknown member": framed(jcs({**MEMBERS, "extra": 1})),
    "a short secret": framed(jcs({**MEMBERS, "signing_secret": "0x01"})),
    "a zero secret": framed(jcs({**MEMBERS, "peer_secret": "0x" + "00" * 32})),
    "no base64": framed(jcs({**MEMBERS, "document": "*"})),
    "no manifest": framed(jcs({**MEMBERS, "manifest": {}})),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_anything_else_in_the_pipe_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidEncoding):
        EpochIdentity.read_from_fd(pipe_with(content))


def test_an_identity_too_large_for_a_pipe_is_refused_by_the_giver() -> None:
    with pytest.raises(InvalidEncoding, match="fit"):
        replace(IDENTITY, document=bytes(MAX_HANDOVER_BYTES)).to_bytes()
