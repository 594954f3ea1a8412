"""Which member of a request kept all nodes out, as far as the log's public server says so."""

from contextlib import suppress
from typing import Final

import trio

from gateway.demands import Demand, limit_below
from gateway.errors import MarketRefused
from gateway.parameters import needed_by
from gateway.ports import PublicLog
from pinaivu.codes import Reason
from pinaivu.errors import TransportFailure

_ASK_WHY_S: Final = 1.0


async def in_the_way(public: PublicLog, refused: MarketRefused, demand: Demand) -> str | None:
    """The member's name; None where the refusal has another cause, or the log doesn't say."""
    if refused.reason not in (Reason.NO_NODES_AVAILABLE, Reason.NO_NODES_WITHIN_LIMITS):
        return None
    with suppress(TransportFailure), trio.move_on_after(_ASK_WHY_S):
        standing = await public.market(demand.model.name)
        if standing is None:
            return None
        if refused.reason == Reason.NO_NODES_WITHIN_LIMITS:
            return limit_below(standing, demand)
        missing = standing.missing(demand.request.features)
        return needed_by(missing, demand.body) if missing else None
    return None
