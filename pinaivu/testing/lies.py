"""What parties change before they sign; everything after that follows from the lie.

    factory.make(scenario, Lies(receipt=lambda r: replace(r, total=0)))

Nothing is refused here: gateway, nodes and coordinator of a lying network accept whatever the
others sign, so that only verification is left to notice.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from pinaivu.auction.transcript import Header, Row
from pinaivu.messages import Award, Batch, Completion, Delivery, Failure, Grant, Job, Offer, Receipt
from pinaivu.settlement import Statement
from pinaivu.typed_data import Signed

Book = list[tuple[Row, Signed[Offer]]]


def _same(value: Any) -> Any:
    return value


class Lies(Struct, frozen=True, kw_only=True):
    """One function for each thing that is signed; by default the truth.

    `body` is the client's own request before anything is derived from it but its prompt count.
    """

    body: Callable[[dict[str, Any]], dict[str, Any]] = _same
    grant: Callable[[Grant], Grant] = _same
    job: Callable[[Job], Job] = _same
    book: Callable[[Book], Book] = _same
    header: Callable[[Header], Header] = _same
    award: Callable[[Award], Award] = _same
    failure: Callable[[Failure], Failure] = _same
    completion: Callable[[Completion], Completion] = _same
    delivery: Callable[[Delivery], Delivery] = _same
    receipt: Callable[[Receipt], Receipt] = _same
    statement: Callable[[Statement], Statement] = _same
    batch: Callable[[Batch], Batch] = _same


TRUTH = Lies()
