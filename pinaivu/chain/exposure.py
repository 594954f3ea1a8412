"""How much of a payer's deposit can be taken when everybody else is hostile.

Whoever holds a log's signing key can debit the log's payers for nothing, but no faster than the
debit limiter allows; and a payer who asks for its money is out after the withdrawal delay, which
nobody can stop. `loss_bound` multiplies the two. It is arithmetic about the contracts and proves
nothing about a deployment: take `times` and limit from `ChainClient`.

Counted from the first sign of trouble on chain (an event), to which the payer reacts within
`reaction_ms`. Changes that administrators make are announced `admin_delay_ms` before: a payer who
reacts to the announcement within the difference of the two delays loses nothing to them.
"""

from typing import Final

from pinaivu.chain.records import Times

PPM: Final = 1_000_000


def loss_bound(
    times: Times,
    limit_ppm: int,
    *,
    balance: int,
    others: int = 0,
    capital: int = 0,
    reaction_ms: int = 0,
    notice_ms: int = 0,
    raised_ppm: int = PPM,
) -> int:
    """Most base units that a payer with `balance` can lose before it is out.

    `others` is what other payers have in the same log, `capital` what the thieves deposit there
    themselves: the limit is a share of all of it. `notice_ms` is how long before the first false
    batch the event came that the payer reacts to: 0 for a stolen key, the administrators' delay
    for what they change. At the same moment the administrators announce `raised_ppm`.
    """
    left = balance + others
    length = times.limiter_window_ms
    for until_ms, room_ms in _rooms(reaction_ms + times.withdrawal_delay_ms - notice_ms, length):
        raised = until_ms >= times.admin_delay_ms - notice_ms
        share = max(limit_ppm, raised_ppm) if raised else limit_ppm
        left -= min(left, (left + capital) * share * room_ms // (PPM * length))
    return min(balance, balance + others - left)


def _rooms(span_ms: int, length_ms: int) -> list[tuple[int, int]]:
    """When thieves best use the limiter's room in a span, and how much of it each time.

    The bucket is empty at first, takes a whole window's share at once, and drains in a window. A
    share of what is left takes more when taken at once, so nothing beats full buckets.
    """
    if span_ms < 0:
        return []
    full = range(0, span_ms + 1, length_ms)
    return [*((at, length_ms) for at in full), (span_ms, span_ms - full[-1])]
