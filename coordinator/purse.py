"""A payer's money as admission sees it, without waiting for the chain where it is in use.

Balance and limit are up to 3 s old, or 10 s where the payer's jobs come every 3 s at least
(`coordinator.directory`; an hour while the chain can't be read). Why that is safe, by what may have
changed on chain since they were asked for:

- A batch became final. Each number is used with the debits that were known to be final right before
  it was asked for: a receipt is counted in the balance or beside it, never in neither. While the
  number is old it may be counted in both; then less is lent, not more.
- The payer asked to leave, or for another log, or the limiter allows less by it. Its money stays
  for the whole withdrawal delay (3 days; checked at deployment to exceed the age of any receipt and
  the longest pause together), in which jobs admitted on the old number are settled.
- It revoked the grant. For these seconds, jobs under it are still accepted.
- It deposited. A job is never refused on an old number: see `fresh`.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from coordinator.admission import Money
from coordinator.directory import Directory, Seen
from coordinator.docket import Docket
from coordinator.log import Log
from coordinator.ports import PayerRecord
from pinaivu.errors import PinaivuError
from pinaivu.messages import Grant, Job


async def money_of(
    directory: Directory, log: Log, docket: Docket, job: Job, grant: Grant, *, fresh: bool = False
) -> Money:
    """What of the payer's money is free; `fresh`: by numbers that are at most 3 s old."""
    payer: Seen[PayerRecord]
    limit: Seen[int]
    settled = partial(log.settled, grant.payer)
    payer, limit = await _both(
        partial(directory.payer, grant.payer, settled, fresh=fresh),
        partial(directory.debitable, log.log_id, log.all_settled, fresh=fresh),
    )
    # settled by now less settled then: final since, perhaps not yet in the number
    late, all_late = settled() - payer.noted, log.all_settled() - limit.noted
    return Money(
        payer=payer.value,
        unsettled=log.unsettled(grant.payer) + late,
        reserved=docket.reserved(grant.payer),
        reserved_under_grant=docket.reserved_under(job.grant_digest),
        reserved_for_account=docket.reserved_for(grant.payer, job.account),
        debitable=limit.value,
        promised=log.all_unsettled() + all_late + docket.all_reserved(),
    )


async def _both(*questions: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Answers asked for at once, in their order; the first error of any."""
    answers: list[Any] = [None] * len(questions)
    errors: list[PinaivuError] = []

    async def ask(place: int) -> None:
        try:
            answers[place] = await questions[place]()
        except PinaivuError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for place in range(len(questions)):
            nursery.start_soon(ask, place)
    if errors:
        raise errors[0]
    return answers
