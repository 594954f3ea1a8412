"""Whether a chain holds our code, and what it was told at its construction.

A chain holds a contract's code with its immutables filled in. With these masked it must equal the
packaged code byte for byte; then the immutables can be read from it, and no view has to be
believed. That says what the code is, not that it is good, and nothing about storage.
"""

from collections.abc import Mapping
from typing import Final

from pinaivu.chain.abi import WORD_BYTES, ContractAbi, load
from pinaivu.chain.deployment import Deployment
from pinaivu.codes import Role
from pinaivu.encoding import Tag, tagged_hash
from pinaivu.errors import PeerFault

_MODEL_ID: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@+-"
_PCR_BYTES: Final = 48
_WIRED: Final = {
    "TOKEN": "token",
    "token": "token",
    "settlement": "settlement",
    "RECEIPT_LOG": "receipt_log",
    "receiptLog": "receipt_log",
    "enclaveRegistry": "enclave_registry",
    "NODE_REGISTRY": "node_registry",
    "nodeRegistry": "node_registry",
    "gatewayRegistry": "gateway_registry",
    "modelRegistry": "model_registry",
    "FAULTS": "objective_faults",
    "faults": "objective_faults",
}
"""Immutables that hold an address → field of the deployment; one meaning in every contract."""
FREE: Final[Mapping[str, frozenset[str]]] = {
    "Settlement": frozenset(
        {
            *("UNSETTLED_MAX", "PAUSE_MAX", "WITHDRAWAL_DELAY", "ADMIN_DELAY"),
            *("PAUSE_INTERVAL", "LIMITER_WINDOW"),
        }
    ),
    "EnclaveRegistry": frozenset({"delay", "epochLifetime"}),
    "NodeRegistry": frozenset({"payoutDelay", "WITHDRAWAL_DELAY"}),
    "ObjectiveFaults": frozenset({"beneficiary"}),
    "QuorumAttestationVerifier": frozenset({"changeDelay"}),
    "SimulatedAttestationVerifier": frozenset({"simulator"}),
}
"""Immutables that a deployment chooses; all others follow from its addresses or are constants."""


class ForeignCode(PeerFault):
    """The code at an address is not the packaged contract's."""


def read_immutables(abi: ContractAbi, code: bytes) -> dict[str, bytes]:
    """Name → word, from a chain's `code`; `ForeignCode` where it is not `abi`'s."""
    if len(code) != len(abi.runtime):
        raise ForeignCode(f"{len(code)} bytes of code, {abi.name} has {len(abi.runtime)}")
    masked, found = bytearray(code), dict[str, bytes]()
    for name, offsets in abi.immutables.items():
        words = {code[at : at + WORD_BYTES] for at in offsets}
        if len(words) != 1:
            raise ForeignCode(f"{abi.name}.{name} has several values in one code")
        found[name] = words.pop()
        for at in offsets:
            masked[at : at + WORD_BYTES] = bytes(WORD_BYTES)
    if masked != abi.runtime:
        at = next(i for i, (a, b) in enumerate(zip(masked, abi.runtime, strict=True)) if a != b)
        raise ForeignCode(f"the code differs from {abi.name}'s from byte {at} on")
    return found


def is_ours(name: str, code: bytes) -> bool:
    """Whether `code` is the packaged contract's, whatever its immutables."""
    try:
        read_immutables(load(name), code)
    except ForeignCode:
        return False
    return True


def expected_immutables(name: str, deployment: Deployment) -> dict[str, bytes]:
    """What the immutables of a contract of `deployment` must be, the free ones left out."""
    separator = deployment.domain.separator
    everywhere = {"domainSeparator": separator}
    own: dict[str, dict[str, bytes]] = {
        "EnclaveRegistry": {"DEBUG_MEASUREMENT": _debug_measurement()},
        "NodeRegistry": {"ROLE": _word(Role.NODE)},
        "GatewayRegistry": {"ROLE": _word(Role.GATEWAY)},
        "ModelRegistry": {"ID_BYTES": _word(sum(1 << byte for byte in set(_MODEL_ID)))},
    }
    wired = {
        member: getattr(deployment, field).rjust(WORD_BYTES, b"\0")
        for member, field in _WIRED.items()
    }
    return {
        member: word
        for member, word in (everywhere | wired | own.get(name, {})).items()
        if member in load(name).immutables
    }


def _word(number: int) -> bytes:
    return int(number).to_bytes(WORD_BYTES)


def _debug_measurement() -> bytes:
    """The digest of three all-zero registers, as `EnclaveRegistry` computes it."""
    return tagged_hash(Tag.PCR, bytes(3 * _PCR_BYTES))
