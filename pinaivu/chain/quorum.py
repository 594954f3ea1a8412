"""What verifiers of a quorum read from the chain, and how its set of members is changed.

The registry names the verifier contract in force; whether that is a quorum, its own answer shows.
Reads are as trustworthy as the endpoint: a verifier asks a node of its own.
"""

from dataclasses import dataclass

from pinaivu.attestation.quorum import Quorum
from pinaivu.attestation.verdicts import SeenBlock, VerifierTrust
from pinaivu.chain.abi import load
from pinaivu.chain.calls import Call
from pinaivu.chain.client import ChainClient
from pinaivu.chain.deployment import Deployment
from pinaivu.chain.errors import ChainUnavailable, Reverted
from pinaivu.chain.views import read, view
from pinaivu.errors import Misconfigured
from pinaivu.manifest import Block

_ABI = "QuorumAttestationVerifier"


class NoQuorum(Misconfigured):
    """The verifier in force is of another kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumState:
    """The verifier contract at `address`: who may sign now, and who will from when.

    `pending` is None and `pending_from_ms` 0 where no other set waits.
    """

    address: bytes
    in_force: Quorum
    pending: Quorum | None
    pending_from_ms: int


class QuorumCalls:
    """Calls that change a quorum; by an administrator and by the guardian."""

    def __init__(self, verifier: bytes) -> None:
        self._address = verifier

    def propose_set(self, quorum: Quorum) -> Call:
        """Replace members and threshold, after the delay."""
        return self._call("proposeSet", sorted(quorum.members), quorum.threshold)

    def suspend(self, member: bytes) -> Call:
        """Take a member's signature out of account at once."""
        return self._call("suspend", member)

    def _call(self, function: str, *arguments: object) -> Call:
        item = load(_ABI).function(function)
        return Call(f"{_ABI}.{function}", self._address, item.encode(*arguments))


def quorum_state(client: ChainClient, block: int | None = None) -> QuorumState:
    """The quorum that the registry believes; `NoQuorum` where it believes something else.

    All of it as of one block.
    """
    at = client.head() if block is None else block
    address, description = client.verifier(at)
    asked = [view(_ABI, address, name) for name in ("setInForce", "pendingSet")]
    try:
        (_, members, threshold), (waiting, coming, needed, from_s) = (
            read(client.rpc, one, at) for one in asked
        )
    except Reverted as error:
        raise NoQuorum(f"the verifier in force is no quorum; it says: {description}") from error
    pending = Quorum(members=frozenset(coming), threshold=needed) if waiting else None
    return QuorumState(
        address=address,
        in_force=Quorum(members=frozenset(members), threshold=threshold),
        pending=pending,
        pending_from_ms=from_s * 1000,
    )


def seen_block(client: ChainClient, number: int) -> SeenBlock:
    """Block `number` as the endpoint has it; `ChainUnavailable` where it has none that is final."""
    final = client.final_block()
    if number > final:
        raise ChainUnavailable(
            f"block {number} is not final yet (the last is {final}); wait, or ask another endpoint"
        )
    found = client.block(number)
    return SeenBlock(block=Block(number=found.number, hash=found.hash), time_ms=found.time_ms)


def trust_in(deployment: Deployment, code: frozenset[tuple[bytes, bytes]]) -> VerifierTrust:
    """Trust in boots of `code` for this deployment, and for no other."""
    return VerifierTrust(
        chain_id=deployment.chain_id,
        settlement=deployment.settlement,
        receipt_log=deployment.receipt_log,
        enclave_registry=deployment.enclave_registry,
        node_registry=deployment.node_registry,
        model_registry=deployment.model_registry,
        code=code,
    )
