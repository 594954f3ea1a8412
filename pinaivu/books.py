"""The running totals of one log: what each party's next receipt must say.

Counters are gapless and totals exact per (log, party), so one receipt next to a statement shows
that nothing was left out. `post` refuses a receipt that does not follow from all before it; the
coordinator writes with it and an auditor replays with it.
"""

from msgspec import Struct

from pinaivu.errors import PeerFault
from pinaivu.messages import Receipt

DAY_MS = 86_400_000


class OutOfSequence(PeerFault):
    """A receipt's counters or totals do not follow from the receipts before it."""


class Running(Struct, frozen=True):
    """A party's last counter and total."""

    counter: int = 0
    total: int = 0

    def plus(self, amount: int) -> "Running":
        """The state one receipt later."""
        return Running(self.counter + 1, self.total + amount)


class Books:
    """Mutable running totals of payers, sub-accounts, nodes and grants of one log."""

    def __init__(self) -> None:
        self.payers: dict[bytes, Running] = {}
        self.accounts: dict[tuple[bytes, bytes], Running] = {}
        self.nodes: dict[bytes, Running] = {}
        self.grant_spent: dict[bytes, int] = {}
        self.grant_spent_day: dict[tuple[bytes, int], int] = {}

    def payer(self, payer: bytes) -> Running:
        """The payer's state so far."""
        return self.payers.get(payer, Running())

    def account(self, payer: bytes, account: bytes) -> Running:
        """The sub-account's state so far; zeros for none."""
        return self.accounts.get((payer, account), Running())

    def node(self, node: bytes) -> Running:
        """The node's state so far."""
        return self.nodes.get(node, Running())

    def spent(self, grant_digest: bytes) -> int:
        """All charged under a grant so far."""
        return self.grant_spent.get(grant_digest, 0)

    def spent_on_day(self, grant_digest: bytes, received_ms: int) -> int:
        """Charged under a grant on the day of `received_ms`."""
        return self.grant_spent_day.get((grant_digest, received_ms // DAY_MS), 0)

    def post(self, receipt: Receipt) -> None:
        """Advance by one receipt; `OutOfSequence`, nothing changed, where it doesn't follow."""
        nodes = self._check(receipt)
        self.payers[receipt.payer] = Running(receipt.payer_counter, receipt.payer_total)
        if any(receipt.account):
            key = (receipt.payer, receipt.account)
            self.accounts[key] = Running(receipt.account_counter, receipt.account_total)
        self.nodes.update(nodes)
        self.grant_spent[receipt.grant_digest] = receipt.grant_spent
        day = (receipt.grant_digest, receipt.received_ms // DAY_MS)
        self.grant_spent_day[day] = receipt.grant_spent_day

    def _check(self, receipt: Receipt) -> dict[bytes, Running]:
        account = Running()
        if any(receipt.account):
            account = self.account(receipt.payer, receipt.account).plus(receipt.total)
        claims = {
            "payer": (
                self.payer(receipt.payer).plus(receipt.total),
                Running(receipt.payer_counter, receipt.payer_total),
            ),
            "account": (account, Running(receipt.account_counter, receipt.account_total)),
            "grant": (
                self.spent(receipt.grant_digest) + receipt.total,
                receipt.grant_spent,
            ),
            "grant day": (
                self.spent_on_day(receipt.grant_digest, receipt.received_ms) + receipt.total,
                receipt.grant_spent_day,
            ),
        }
        nodes: dict[bytes, Running] = {}
        for number, segment in enumerate(receipt.segments):
            said = Running(segment.node_counter, segment.node_total)
            if segment.rank == 0:
                claims[f"segment {number}"] = (Running(), said)
                continue
            before = nodes.get(segment.node) or self.node(segment.node)
            nodes[segment.node] = before.plus(segment.amount - segment.fee)
            claims[f"segment {number}"] = (nodes[segment.node], said)
        for what, (expected, found) in claims.items():
            if expected != found:
                raise OutOfSequence(f"{what}: expected {expected}, the receipt says {found}")
        return nodes
