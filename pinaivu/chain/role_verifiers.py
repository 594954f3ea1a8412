"""Who vouches for enclaves: the verifier in force and the one that waits, and their quorums.

Says which code they are, for which deployment, how slowly they change and whether their quorum can
be reached; not whether its members are who they say.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from pinaivu.chain.abi import load
from pinaivu.chain.code import is_ours, read_immutables
from pinaivu.chain.records import Times
from pinaivu.chain.role_state import RoleState
from pinaivu.keys import ZERO_ADDRESS, checksum

_QUORUM: Final = "QuorumAttestationVerifier"
_SIMULATED: Final = "SimulatedAttestationVerifier"
_SECOND: Final = 1000


def check_verifiers(state: RoleState, times: Times) -> list[bytes]:
    """Addresses of those that have restricted functions, the quorums."""
    if "EnclaveRegistry" not in state.words:
        return []
    registry = state.deployment.enclave_registry
    (verifier,) = state.ask("EnclaveRegistry", registry, "verifier")
    (waiting, effective_at) = state.ask("EnclaveRegistry", registry, "pendingVerifier")
    named = [address for address in (verifier, waiting) if address != ZERO_ADDRESS]
    quorums = [address for address in named if _kind(state, address, times) == _QUORUM]
    if waiting != ZERO_ADDRESS:
        state.notes.append(f"verifier {checksum(waiting)} waits, in force from {effective_at}")
    for address in quorums:
        _check_quorum(state, address)
    return quorums


def _kind(state: RoleState, address: bytes, times: Times) -> str | None:
    """The name of its code; None, and a deviation, where that is none of ours."""
    code = state.code(address)
    name = next((name for name in (_QUORUM, _SIMULATED) if is_ours(name, code)), None)
    if name is None:
        state.wrong.append(f"code: the attestation verifier {checksum(address)} is none of ours")
        return None
    words = read_immutables(load(name), code)
    if words["domainSeparator"] != state.deployment.domain.separator:
        state.wrong.append(f"wiring: {name} was made for another deployment")
    if name == _SIMULATED:
        state.only_locally("the attestation verifier is SIMULATED: a test key vouches for all")
    elif int.from_bytes(words["changeDelay"]) * _SECOND < times.admin_delay_ms:
        state.wrong.append(f"times: {name}.changeDelay is shorter than the admin delay")
    return name


def _check_quorum(state: RoleState, address: bytes) -> None:
    """Its set in force, and the one that waits: the guardian may have taken members out of both."""
    shown = f"attestation verifier {checksum(address)}"
    (description,) = state.ask(_QUORUM, address, "description")
    state.notes.append(f"{shown}: {description}")
    (_, members, threshold) = state.ask(_QUORUM, address, "setInForce")
    state.wrong.extend(_out_of_reach(shown, members, threshold))
    (number, members, threshold, effective_at) = state.ask(_QUORUM, address, "pendingSet")
    if number:
        who = ", ".join(checksum(member) for member in members)
        state.notes.append(
            f"{shown}: another set waits, in force from second {effective_at} on:"
            f" {threshold} of {len(members)}, {who}"
        )
        state.wrong.extend(_out_of_reach(f"{shown}, waiting set", members, threshold))


def _out_of_reach(shown: str, members: Sequence[bytes], threshold: int) -> Iterator[str]:
    if threshold > len(members):
        yield (
            f"quorum: {shown}: {threshold} of {len(members)} must sign, so no epoch can be"
            " activated"
        )
