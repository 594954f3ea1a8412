"""The money of Settlement in dictionaries and plain integers, to be compared with the contracts.

One method per function of the contract, with its name and its checks in the contract's order. Each
takes who calls it and, where time matters, the second of the block. A method returns nothing and
changes the model, or raises `Refused` with the custom error's name and arguments. It may have
changed something before that: apply it to a copy, and keep the copy only if it was not refused.

The debit limiter is `take` alone. Trees and signatures are not modelled: who submits says who
signed, and what the proof deserves.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn

from pinaivu.chain.records import NO_LOG, Anchor
from pinaivu.keys import ZERO_ADDRESS
from pinaivu.messages import Batch

INFINITE: Final = 2**256 - 1
PPM: Final = 1_000_000
BPS: Final = 10_000
MAX_FEE_BPS: Final = 1_000
MIN_LIMIT_PPM: Final = 10_000
ROW: Final = 32


class Refused(Exception):
    """The contract reverts with this custom error."""

    def __init__(self, name: str, *arguments: object) -> None:
        super().__init__(name, *arguments)
        self.name = name
        self.arguments = arguments


def refuse(name: str, *arguments: object) -> NoReturn:
    """Revert."""
    raise Refused(name, *arguments)


@dataclass(frozen=True)
class Rules:
    """What is fixed at deployment; seconds."""

    pause_max: int
    withdrawal_delay: int
    admin_delay: int
    pause_interval: int
    limiter_window: int
    epoch_lifetime: int


@dataclass
class Account:
    """A payer's money in one log's ledger."""

    balance: int = 0
    requested: int = 0
    available_at: int = 0


@dataclass
class Payer:
    """What a payer has chosen."""

    log: bytes = NO_LOG
    next_log: bytes = NO_LOG
    movable_at: int = 0
    grant_epoch: int = 0


@dataclass
class Log:
    """A log's ledger, its anchors from the empty one on, and its epoch."""

    operator: bytes = ZERO_ADDRESS
    assigned: int = 0
    drained_at: int = 0
    reserve: int = 0
    fees: int = 0
    reserve_requested: int = 0
    reserve_available_at: int = 0
    anchors: list[Anchor] = field(default_factory=list)
    epoch: int = 0
    key: bytes = ZERO_ADDRESS
    expires_at: int = 0

    @property
    def sequence(self) -> int:
        """Number of the last batch."""
        return self.anchors[-1].sequence if self.anchors else 0


@dataclass
class Node:
    """A node's credit, and where it is paid out."""

    credit: int = 0
    lifetime: int = 0
    wallet: bytes = ZERO_ADDRESS


@dataclass
class Tally:
    """All that ever happened to a payer's deposits."""

    deposited: int = 0
    debited: int = 0
    withdrawn: int = 0


@dataclass
class Money:
    """Everything Settlement and its token hold. Addresses and log ids are bytes."""

    rules: Rules
    settlement: bytes
    administrator: bytes
    guardian: bytes
    limit_ppm: int
    next_limit_ppm: int = 0
    next_limit_from: int = 0
    paused_until: int = 0
    next_pause_from: int = 0
    logs: dict[bytes, Log] = field(default_factory=lambda: {NO_LOG: Log()})
    payers: dict[bytes, Payer] = field(default_factory=dict)
    accounts: dict[tuple[bytes, bytes], Account] = field(default_factory=dict)
    debts: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    nodes: dict[bytes, Node] = field(default_factory=dict)
    tokens: dict[bytes, int] = field(default_factory=dict)
    allowances: dict[bytes, int] = field(default_factory=dict)
    tallies: dict[bytes, Tally] = field(default_factory=dict)

    # Tokens

    def approve(self, owner: bytes, amount: int) -> None:
        """Let Settlement take up to `amount`."""
        self.allowances[owner] = amount

    def pull(self, owner: bytes, amount: int) -> None:
        """Settlement takes `amount` from the caller."""
        if amount == 0:
            refuse("ZeroAmount")
        allowed, held = self.allowances.get(owner, 0), self.tokens.get(owner, 0)
        if allowed < amount:
            refuse("ERC20InsufficientAllowance", self.settlement, allowed, amount)
        if held < amount:
            refuse("ERC20InsufficientBalance", owner, held, amount)
        if allowed != INFINITE:
            self.allowances[owner] = allowed - amount
        self.pay(owner, -amount)

    def pay(self, owner: bytes, amount: int) -> None:
        """Settlement pays `amount` out."""
        self.tokens[owner] = self.tokens.get(owner, 0) + amount
        self.tokens[self.settlement] = self.tokens.get(self.settlement, 0) - amount

    # Payers

    def payer(self, payer: bytes) -> Payer:
        """What a payer has chosen so far."""
        return self.payers.setdefault(payer, Payer())

    def account(self, log: bytes, payer: bytes) -> Account:
        """A payer's account in a log's ledger."""
        return self.accounts.setdefault((log, payer), Account())

    def tally(self, payer: bytes) -> Tally:
        """What happened to a payer's deposits."""
        return self.tallies.setdefault(payer, Tally())

    def deposit(self, sender: bytes, payer: bytes, amount: int) -> None:
        """`deposit`, `depositFor`, and `depositWithPermit` behind `approve`."""
        if payer == ZERO_ADDRESS:
            refuse("ZeroAddress")
        self.pull(sender, amount)
        self.tally(payer).deposited += amount
        log = self.payer(payer).log
        account = self.account(log, payer)
        account.requested = min(account.requested, account.balance)
        self._add(log, payer, amount)

    def assign(self, sender: bytes, log: bytes) -> None:
        """Once, and at once."""
        self._known(log)
        payer = self.payer(sender)
        if payer.log != NO_LOG:
            refuse("AlreadyAssigned", sender, payer.log)
        self._move(sender, log)

    def request_move(self, sender: bytes, log: bytes, now: int) -> None:
        """To another log, or to none; to the same one cancels."""
        payer = self.payer(sender)
        if payer.log == NO_LOG:
            refuse("NotAssigned", sender)
        if log != NO_LOG:
            self._known(log)
        payer.next_log = log
        payer.movable_at = 0 if log == payer.log else now + self.rules.withdrawal_delay

    def complete_move(self, sender: bytes, now: int) -> None:
        """Once the delay is over."""
        payer = self.payer(sender)
        _matured(payer.movable_at, now)
        self._move(sender, payer.next_log)

    def bump_grant_epoch(self, sender: bytes) -> None:
        """End all grants."""
        self.payer(sender).grant_epoch += 1

    def request_withdrawal(self, sender: bytes, amount: int, now: int) -> None:
        """Of any amount; 0 cancels."""
        account = self.account(self.payer(sender).log, sender)
        account.requested = amount
        account.available_at = now + self.rules.withdrawal_delay if amount else 0

    def withdraw(self, sender: bytes, to: bytes, now: int) -> None:
        """Of what is left of the requested amount."""
        if to == ZERO_ADDRESS:
            refuse("ZeroAddress")
        log = self.payer(sender).log
        account = self.account(log, sender)
        _matured(account.available_at, now)
        amount = min(account.requested, account.balance)
        self.accounts[log, sender] = Account(account.balance - amount)
        self.logs[log].assigned -= amount
        self.tally(sender).withdrawn += amount
        self.pay(to, amount)

    def _add(self, log: bytes, payer: bytes, amount: int) -> None:
        """Debts to the log's reserve come first."""
        debt = self.debts.get((log, payer), 0)
        repaid = min(debt, amount)
        self.debts[log, payer] = debt - repaid
        self.logs[log].reserve += repaid
        self.tally(payer).debited += repaid
        self.account(log, payer).balance += amount - repaid
        self.logs[log].assigned += amount - repaid

    def _move(self, payer: bytes, to: bytes) -> None:
        choice = self.payer(payer)
        left = self.account(choice.log, payer)
        self.accounts[choice.log, payer] = Account()
        self.logs[choice.log].assigned -= left.balance
        self.accounts[to, payer] = replace(left, balance=0)
        self.payers[payer] = Payer(to, NO_LOG, 0, choice.grant_epoch)
        self._add(to, payer, left.balance)

    # Operators

    def fund_reserve(self, sender: bytes, log: bytes, amount: int) -> None:
        """By anybody."""
        self._known(log)
        self.pull(sender, amount)
        entry = self.logs[log]
        entry.reserve_requested = min(entry.reserve_requested, entry.reserve)
        entry.reserve += amount

    def request_reserve_withdrawal(self, sender: bytes, log: bytes, amount: int, now: int) -> None:
        """0 cancels."""
        entry = self._own(sender, log)
        entry.reserve_requested = amount
        entry.reserve_available_at = now + self.rules.withdrawal_delay if amount else 0

    def withdraw_reserve(self, sender: bytes, log: bytes, to: bytes, now: int) -> None:
        """Of what is left of the requested amount."""
        entry = self._own(sender, log)
        if to == ZERO_ADDRESS:
            refuse("ZeroAddress")
        _matured(entry.reserve_available_at, now)
        amount = min(entry.reserve_requested, entry.reserve)
        entry.reserve_requested = entry.reserve_available_at = 0
        entry.reserve -= amount
        self.pay(to, amount)

    def withdraw_fees(self, sender: bytes, log: bytes, to: bytes) -> None:
        """All of them."""
        entry = self._own(sender, log)
        if to == ZERO_ADDRESS:
            refuse("ZeroAddress")
        if entry.fees == 0:
            refuse("ZeroAmount")
        amount, entry.fees = entry.fees, 0
        self.pay(to, amount)

    def _known(self, log: bytes) -> Log:
        if log == NO_LOG or log not in self.logs:
            refuse("UnknownLog", log)
        return self.logs[log]

    def _own(self, sender: bytes, log: bytes) -> Log:
        entry = self.logs.get(log)
        if entry is None or entry.operator != sender:
            refuse("NotOperator", log, sender)
        return entry

    # Nodes

    def payout(self, nodes: Iterable[bytes]) -> None:
        """To registered wallets; others are passed over."""
        for name in nodes:
            node = self.nodes[name]
            if node.wallet != ZERO_ADDRESS:
                amount, node.credit = node.credit, 0
                self.pay(node.wallet, amount)

    def withdraw_credit(self, sender: bytes) -> None:
        """To the payout wallet."""
        node = self.nodes.get(sender, Node())
        if node.wallet == ZERO_ADDRESS:
            refuse("NodeNotRegistered", sender)
        if node.credit == 0:
            refuse("NoCredit", sender)
        self.payout([sender])

    # Administrators, guardian, epochs

    def set_debit_limit(self, sender: bytes, limit_ppm: int, now: int) -> None:
        """Down at once, up after the delay."""
        if sender != self.administrator:
            refuse("AccessManagedUnauthorized", sender)
        if not MIN_LIMIT_PPM <= limit_ppm <= PPM:
            refuse("InvalidDebitLimit", limit_ppm)
        self.limit_ppm = present = self.debit_limit(now)
        self.next_limit_ppm = self.next_limit_from = 0
        if limit_ppm <= present:
            self.limit_ppm = limit_ppm
        else:
            self.next_limit_ppm, self.next_limit_from = limit_ppm, now + self.rules.admin_delay

    def debit_limit(self, now: int) -> int:
        """The limit in force."""
        changed = self.next_limit_from and now >= self.next_limit_from
        return self.next_limit_ppm if changed else self.limit_ppm

    def pause(self, sender: bytes, duration: int, now: int) -> None:
        """Bounded in length and number."""
        if sender != self.guardian:
            refuse("AccessManagedUnauthorized", sender)
        if duration > self.rules.pause_max:
            refuse("PauseTooLong", duration, self.rules.pause_max)
        if now < self.next_pause_from:
            refuse("PausedTooRecently", self.next_pause_from)
        self.paused_until, self.next_pause_from = now + duration, now + self.rules.pause_interval

    def unpause(self, sender: bytes) -> None:
        """Doesn't let the next pause come earlier."""
        if sender != self.guardian:
            refuse("AccessManagedUnauthorized", sender)
        self.paused_until = 0

    def activate(self, sender: bytes, log: bytes, key: bytes, now: int) -> None:
        """The next epoch, of a key never used before."""
        entry = self._own(sender, log)
        entry.epoch += 1
        entry.key, entry.expires_at = key, now + self.rules.epoch_lifetime

    def revoke_epoch(self, sender: bytes, log: bytes) -> None:
        """The active epoch, by the guardian or by the log's operator."""
        if sender != self.guardian:
            self._own(sender, log)
        entry = self.logs[log]
        if entry.epoch == 0:
            refuse("UnknownEpoch", log, 0)
        if entry.key == ZERO_ADDRESS:
            refuse("EpochAlreadyRevoked", log, entry.epoch)
        entry.key = ZERO_ADDRESS

    def active_epoch(self, log: bytes, now: int) -> tuple[bytes, int]:
        """Key and number of the epoch that may sign now."""
        entry = self.logs.get(log, Log())
        if entry.key == ZERO_ADDRESS:
            refuse("NoActiveEpoch", log)
        if now >= entry.expires_at:
            refuse("EpochExpired", log, entry.epoch, entry.expires_at)
        return entry.key, entry.epoch

    # Batches

    def settle(
        self,
        batch: Batch,
        digest: bytes,
        signer: bytes,
        last: Anchor,
        history: Refused | None,
        now: int,
    ) -> None:
        """A batch of this digest by this signer on `last`; `history`: what its proof deserves."""
        if now < self.paused_until:
            refuse("SettlementPaused", self.paused_until)
        log = self.logs.get(batch.log_id, Log())
        self._check_continues(log, batch, last)
        if history is not None:
            raise history
        key, epoch = self.active_epoch(batch.log_id, now)
        if batch.epoch != epoch:
            refuse("WrongEpoch", batch.log_id, epoch, batch.epoch)
        if signer != key:
            refuse("WrongSigner", key, signer)
        taken = self._move_money(log, batch)
        self.take(batch.log_id, log, taken, now)
        anchor = Anchor(
            batch.log_id, batch.sequence, batch.prev_size, batch.new_size, batch.new_root, digest
        )
        log.anchors.append(anchor)

    def _check_continues(self, log: Log, batch: Batch, last: Anchor) -> None:
        if batch.sequence != log.sequence + 1:
            refuse("WrongSequence", batch.log_id, log.sequence + 1, batch.sequence)
        if batch.new_size <= batch.prev_size:
            refuse("EmptyRange", batch.prev_size, batch.new_size)
        if log.sequence == 0:
            if batch.prev_size:
                refuse("AnchorMismatch", bytes(32), batch.prev_size.to_bytes(32))
        else:
            given = replace(
                last, sequence=log.sequence, new_size=batch.prev_size, new_root=batch.prev_root
            )
            if given.word != log.anchors[-1].word:
                refuse("AnchorMismatch", log.anchors[-1].word, given.word)

    def _move_money(self, log: Log, batch: Batch) -> int:
        """Rows and fees; what was taken from balances. The reserve fills gaps, then all shrinks."""
        taken = covered = uncovered = 0
        for payer, amount in rows(batch.debits):
            account = self.account(batch.log_id, payer)
            paid = min(amount, account.balance)
            lent = min(amount - paid, log.reserve - covered)
            account.balance -= paid
            self.tally(payer).debited += paid
            self.debts[batch.log_id, payer] = self.debts.get((batch.log_id, payer), 0) + lent
            taken, covered = taken + paid, covered + lent
            uncovered += amount - paid - lent
        due = taken + covered + uncovered
        backed = due - uncovered
        total = credited = 0
        for name, amount in rows(batch.credits):
            share = amount * backed // due if due else amount
            total, credited = total + amount, credited + share
            node = self.nodes.setdefault(name, Node())
            node.credit, node.lifetime = node.credit + share, node.lifetime + share
        if due != total + batch.fees:
            refuse("UnbalancedBatch", due, total, batch.fees)
        if batch.fees * BPS > due * MAX_FEE_BPS:
            refuse("FeeTooHigh", batch.fees, due)
        fees = batch.fees * backed // due if due else 0
        log.fees += fees
        log.reserve += backed - credited - fees - covered
        return taken

    def take(self, log_id: bytes, log: Log, amount: int, now: int) -> None:
        """The debit limiter: a bucket that drains a share of the deposits per window."""
        limit, drained_at = self.debit_limit(now), max(log.drained_at, now)
        if amount and limit != PPM:
            room, share = self._room(log, now), log.assigned * limit
            filled = -(-amount * PPM * self.rules.limiter_window // share)
            if filled > room:
                refuse("DebitLimitExceeded", log_id, amount, self.debitable(log, now))
            log.drained_at = drained_at + filled
        log.assigned -= amount

    def debitable(self, log: Log, now: int) -> int:
        """What `take` would still let through."""
        limit = self.debit_limit(now)
        if limit == PPM:
            return log.assigned
        return log.assigned * limit * self._room(log, now) // (PPM * self.rules.limiter_window)

    def _room(self, log: Log, now: int) -> int:
        """Seconds by which the bucket may still be filled."""
        return max(0, now + self.rules.limiter_window - max(log.drained_at, now))

    def held(self) -> int:
        """Σ balances + credit + reserves + fees: what Settlement must hold."""
        return (
            sum(account.balance for account in self.accounts.values())
            + sum(node.credit for node in self.nodes.values())
            + sum(log.reserve + log.fees for log in self.logs.values())
        )


def rows(packed: bytes) -> Iterator[tuple[bytes, int]]:
    """The rows of a batch, strictly ascending by address, none of them zero."""
    if len(packed) % ROW:
        refuse("WrongRowsLength", len(packed))
    before = ZERO_ADDRESS
    for at in range(0, len(packed), ROW):
        party, amount = packed[at : at + 20], int.from_bytes(packed[at + 20 : at + ROW])
        if party <= before:
            refuse("RowsNotAscending", before, party)
        if amount == 0:
            refuse("ZeroRow", party)
        yield party, amount
        before = party


def _matured(available_at: int, now: int) -> None:
    if available_at == 0:
        refuse("NothingRequested")
    if now < available_at:
        refuse("TooEarly", available_at, now)
