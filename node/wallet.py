"""A node's standing on chain: its registration, its payout wallet, and what it was paid.

For the command line and the service's start-up; synchronous. A node registers by its own
transaction, or signs a registration that anyone may send, so that its key never needs gas money.
The chain decides what counts; nothing here is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from node.errors import NotRegistered
from node.journal import LogEarnings
from node.ports import Chain
from pinaivu.bindings import sign_peer_binding
from pinaivu.chain.calls import Call, Calls
from pinaivu.chain.records import NodeRecord
from pinaivu.chain.transactor import TxOutcome
from pinaivu.codes import Role
from pinaivu.keys import SecretKey, checksum, peer_id_of_point
from pinaivu.messages import NodeRegistration
from pinaivu.typed_data import Domain, Signed

REGISTER_COMMAND: Final = "pinaivu node register"
RELAY_WITHIN_MS: Final = 3_600_000


class Sender(Protocol):
    """What sends a call and waits for it, such as `pinaivu.chain.transactor.Transactor`."""

    def send(self, call: Call) -> TxOutcome:
        """Send the call; raises `Reverted` where the contract refuses."""


class NonceChain(Protocol):
    """Where the next nonce of a relayed registration is read (`ChainClient`)."""

    def registration_nonce(self, registry: str, owner: bytes) -> int:
        """The next nonce of `owner` in ``node_registry``."""


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The two keys of a node: `signing` owns its money, `peer` is its identity on the network."""

    signing: SecretKey
    peer: SecretKey

    @property
    def address(self) -> bytes:
        """The node's address."""
        return self.signing.address

    def binding(self, domain: Domain) -> bytes:
        """The peer key's signature that ties it to the node."""
        return sign_peer_binding(domain, self.address, Role.NODE, self.peer)


@dataclass(frozen=True, slots=True)
class Totals:
    """A node's money in base units: by its receipts, credited by batches, and of that paid out."""

    earned: int
    credited: int
    paid: int
    missing_receipts: int

    @property
    def unsettled(self) -> int:
        """Earned by receipts whose batch is not settled yet."""
        return self.earned - self.credited

    @property
    def withdrawable(self) -> int:
        """Credit that can be paid out now."""
        return self.credited - self.paid


def register(keys: NodeKeys, payout: bytes, domain: Domain, calls: Calls, sender: Sender) -> None:
    """Register the node, or update payout wallet and peer, by its own transaction.

    `sender` sends with the node's signing key. A changed payout wallet takes the chain's delay.
    """
    sender.send(calls.register_node(payout, keys.peer.point, keys.binding(domain)))


def relayed_registration(
    keys: NodeKeys, payout: bytes, domain: Domain, calls: Calls, chain: NonceChain, now_ms: int
) -> Call:
    """A registration signed by the node, for anyone to send within the hour."""
    registration = NodeRegistration(
        node=keys.address,
        payout=payout,
        peer_x=keys.peer.point[:32],
        peer_y=keys.peer.point[32:],
        nonce=chain.registration_nonce("node_registry", keys.address),
        deadline_ms=now_ms + RELAY_WITHIN_MS,
    )
    signed = Signed.by(keys.signing, domain, registration)
    return calls.register_node_by_signature(signed, keys.binding(domain))


def check_registered(keys: NodeKeys, chain: Chain) -> NodeRecord:
    """The node's registration, if it names this peer key; `NotRegistered` says what to do."""
    record = chain.node(keys.address)
    if record is None:
        raise NotRegistered(
            f"node {checksum(keys.address)} is not registered on chain; run: {REGISTER_COMMAND}"
        )
    if record.peer_point != keys.peer.point:
        raise NotRegistered(
            f"node {checksum(keys.address)} is registered with peer {record.peer_id}, but its peer"
            f" key here is {peer_id_of_point(keys.peer.point)}; put the registered peer key back,"
            f" or run: {REGISTER_COMMAND}"
        )
    return record


def totals(node: bytes, earnings: Sequence[LogEarnings], chain: Chain) -> Totals:
    """What receipts and chain say of a node's money."""
    (credit,) = chain.node_credits([node])
    return Totals(
        earned=sum(log.running_total for log in earnings),
        credited=credit.lifetime,
        paid=credit.lifetime - credit.credit,
        missing_receipts=sum(log.missing for log in earnings),
    )


def pay_out(nodes: Sequence[bytes], calls: Calls, send: Callable[[Call], TxOutcome]) -> TxOutcome:
    """Push the credit of nodes to their payout wallets; anyone may send this."""
    return send(calls.payout(nodes))
