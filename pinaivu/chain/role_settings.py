"""What a deployer chose, and administrators may be changing: times, debit limit, beneficiary.

The rules for times are those of the contracts' constructors, looked at again in the code that
stands on the chain: `contracts/ignition/settings.js` has the same before anything is sent.
"""

from collections.abc import Iterator
from typing import Final

from pinaivu.chain.records import Times
from pinaivu.chain.role_state import RoleState
from pinaivu.keys import ADDRESS_BYTES, ZERO_ADDRESS, checksum

LONGEST_WITHDRAWAL_MS: Final = 30 * 86_400_000
"""A longer withdrawal delay would be a deposit without a way out."""

_SECOND: Final = 1000
_PPM: Final = 1_000_000
_PERCENT_PPM: Final = 10_000


def check_times(state: RoleState, times: Times) -> None:
    """Settlement's own times, and that no registry is quicker than they need."""
    state.wrong.extend(f"times: {what}" for what in _wrong_times(times))
    admin, withdrawal = times.admin_delay_ms, times.withdrawal_delay_ms
    for contract, member, least, what in (
        ("EnclaveRegistry", "delay", admin, "the admin delay"),
        ("EnclaveRegistry", "epochLifetime", _SECOND, "a second"),
        ("NodeRegistry", "WITHDRAWAL_DELAY", withdrawal, "the withdrawal delay"),
        ("NodeRegistry", "payoutDelay", withdrawal, "the withdrawal delay"),
    ):
        found = state.duration_ms(contract, member)
        if found is not None and found < least:
            state.wrong.append(
                f"times: {contract}.{member} is {found // _SECOND} s, shorter than {what}"
            )


def _wrong_times(times: Times) -> Iterator[str]:
    longest_stop_ms = times.unsettled_max_ms + times.pause_max_ms
    ordered = (
        0 < times.unsettled_max_ms < times.pause_max_ms
        and longest_stop_ms < times.withdrawal_delay_ms < times.admin_delay_ms
    )
    if not ordered:
        yield f"not in the order that lets payers leave first: {times}"
    if times.withdrawal_delay_ms > LONGEST_WITHDRAWAL_MS:
        yield f"withdrawals wait {times.withdrawal_delay_ms // _SECOND} s, more than 30 days"
    if times.pause_interval_ms <= times.withdrawal_delay_ms:
        yield "pauses can follow each other within a withdrawal delay: nobody is paid meanwhile"
    if times.limiter_window_ms < times.pause_max_ms:
        yield (
            f"the debit limiter's window is {times.limiter_window_ms // _SECOND} s, shorter than"
            " the longest pause: it limits too little"
        )


def check_debit_limit(state: RoleState) -> None:
    """The share in force, and a higher one that waits out the contract's own delay."""
    settlement = state.deployment.settlement
    (limit,) = state.ask("Settlement", settlement, "debitLimit")
    if limit >= _PPM:
        state.only_locally("the debit limit is 100 %: a stolen epoch key takes all at once")
    else:
        state.notes.append(f"debit limit: {_percent(limit)} of a log's deposits")
    waiting, effective_at = state.ask("Settlement", settlement, "pendingDebitLimit")
    if effective_at:
        state.notes.append(
            f"a debit limit of {_percent(waiting)} waits, in force from second {effective_at} on"
        )


def check_beneficiary(state: RoleState) -> None:
    """Who gets what faults cost and no reporter gets. No deployment file says who was meant."""
    words = state.words.get("ObjectiveFaults")
    if words is None:
        return
    beneficiary = words["beneficiary"][-ADDRESS_BYTES:]
    if beneficiary == ZERO_ADDRESS:
        state.wrong.append("wiring: ObjectiveFaults has no beneficiary: what is slashed is stuck")
    else:
        state.notes.append(f"what faults cost goes to {checksum(beneficiary)}, rewards apart")


def _percent(ppm: int) -> str:
    return f"{ppm / _PERCENT_PPM:g} %"
