"""What stands on offer for one model at this moment, in a few figures for anybody.

No promise to anyone: each job has an auction of its own, in which bids are lower and the second
score pays.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pinaivu.messages import Offer


def standing(offers: Sequence[Offer]) -> dict[str, Any] | None:
    """Figures of live offers of one model; None where there are none.

    Prices are base units per million output tokens, the median the lower one. `features` counts
    nodes by exactly what they offer (the bits of types.md, section 1).
    """
    if not offers:
        return None
    prices = sorted(offer.price_out for offer in offers)
    features = Counter(offer.features for offer in offers)
    return {
        "nodes": len(offers),
        "slots": sum(offer.slots for offer in offers),
        "price_out": {"cheapest": prices[0], "median": prices[(len(prices) - 1) // 2]},
        "context_tokens": max(offer.context_tokens for offer in offers),
        "features": [{"bits": bits, "nodes": nodes} for bits, nodes in sorted(features.items())],
    }
