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
    for until_ms in _windows(reaction_ms + times.withdrawal_delay_ms - notice_ms, times):
        raised = until_ms >= times.admin_delay_ms - notice_ms
        share = max(limit_ppm, raised_ppm) if raised else limit_ppm
        left -= min(left, (left + capital) * share // PPM)
    return min(balance, balance + others - left)


def _windows(span_ms: int, times: Times) -> list[int]:
    """Until when each limiter window that a span touches can be used up, its last second included.

    One may be about to end as the span begins; the next one follows at once, and one each length.
    """
    if span_ms < 0:
        return []
    length = times.limiter_window_ms
    return [0, *(min(start + length, span_ms) for start in range(0, span_ms, length))]
