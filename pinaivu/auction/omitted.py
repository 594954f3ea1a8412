"""Offers that one auction's book held and a later one lacked although they were still firm.

A transcript alone can't show that an offer is missing. Two of one log and epoch can: an offer is
firm until it expires, so whoever stood in the book before must stand in it still, with that offer
or a newer one, unless the node withdrew it. A withdrawal is an offer with no slots, signed by the
node, so the coordinator can show it; a coordinator that left the node out has none to show.

Not shown here: an offer that never stood in any book (the coordinator signs no acknowledgement), or
a node that was struck off the registry in between, which only the chain tells.
"""

from pinaivu.auction.replay import Replay, TranscriptFault
from pinaivu.messages import Offer
from pinaivu.typed_data import Domain, Signed


def related(earlier: Replay, later: Replay) -> bool:
    """Whether both are of one log, epoch and model, and in this order."""
    before, after = earlier.header, later.header
    same = (after.log_id, after.epoch, after.model_key) == (
        before.log_id,
        before.epoch,
        before.model_key,
    )
    return same and before.open_ms <= after.open_ms


def left_out(earlier: Replay, later: Replay) -> list[Offer]:
    """Offers of `earlier` that were firm when `later` opened, and whose nodes its book lacks.

    Empty where the two are not `related`: then the one says nothing about the other.
    """
    if not related(earlier, later):
        return []
    there = {entrant.row.node for entrant in later.entrants}
    return [
        entrant.offer
        for entrant in earlier.entrants
        if entrant.row.node not in there and later.header.open_ms < entrant.offer.expires_ms
    ]


def require_withdrawal(
    withdrawal: Signed[Offer], offer: Offer, later: Replay, domain: Domain
) -> None:
    """Require that a newer word of the node explains why `later`'s book lacks its `offer`.

    `BadSignature` where the node did not sign it, `TranscriptFault` where it explains nothing.
    """
    newer, opened_ms = withdrawal.message, later.header.open_ms
    withdrawal.require(domain, offer.node)
    if (newer.log_id, newer.model) != (offer.log_id, offer.model):
        raise TranscriptFault("the node's word is about another log or model")
    if newer.sequence <= offer.sequence or newer.issued_ms > opened_ms:
        raise TranscriptFault("the node's word is older than its offer, or came after the opening")
    if newer.slots and newer.expires_ms > opened_ms:
        raise TranscriptFault("the node's newer offer was firm, too, when the auction opened")
