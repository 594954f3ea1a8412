"""What it costs to store an award's transcript and its book, by the book's size.

    python -m bench.transcripts

Prints milliseconds in the event loop (composing the transcript), in the writer's thread (the whole
transaction, commit included) where ten offers were renewed, where all were, and where the book is
written whole; bytes stored; and how long a stranger's `/books/{root}` takes. Offers carry one
signature, which nothing here checks.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from msgspec.structs import replace

from coordinator.archive import Archive, Books
from coordinator.auctioneer import Held
from coordinator.field import Slot
from coordinator.rows import transcript_values
from pinaivu.auction.rule import Entrant
from pinaivu.auction.transcript import Header, Row
from pinaivu.keys import SecretKey
from pinaivu.messages import Offer
from pinaivu.store.coordinator import BookRow
from pinaivu.store.database import open_database
from pinaivu.typed_data import Domain, Signed

SIZES = (10, 256, 1_000, 10_000)
ROUNDS = 50
RENEWED = 10
OUT = Path(__file__).parent / "out" / "transcripts.json"
_ZERO = bytes(32)
_OFFER = Signed.by(
    SecretKey(b"\x01" * 32),
    Domain(31_337, b"\x5e" * 20),
    Offer(
        log_id=_ZERO,
        node=bytes(20),
        fingerprint=_ZERO,
        features=1 << 32,
        context_tokens=8192,
        price_out=10**6,
        ttft_ms=200,
        tps_milli=50_000,
        slots=4,
        sequence=0,
        issued_ms=1_800_000_000_000,
        expires_ms=1_800_000_015_000,
        model="made-up/model",
    ),
)


def slot(number: int) -> Slot:
    """A made-up node's slot with a new offer."""
    node = number.to_bytes(20)
    signed = Signed(replace(_OFFER.message, node=node), _OFFER.signature)
    row = Row(
        offer_digest=os.urandom(32),
        node=node,
        payout=node,
        bond_funder=bytes(20),
        success_ppm=900_000,
        cal_t=1000,
        cal_s=1000,
        busy=0,
    )
    return Slot(Entrant(row, signed.message), signed)


def held() -> Held:
    """A finished standing auction; its header's numbers are made up, its order isn't asked for."""
    numbers = dict.fromkeys(Header.__struct_fields__, 0)
    digests = ("job_digest", "log_id", "nonce", "model_key", "fingerprint", "parameters_digest")
    header = Header(**(numbers | dict.fromkeys((*digests, "book_root"), _ZERO)))  # type: ignore[arg-type]
    return Held(ranking=None, header=header, calls=(), bids=())  # type: ignore[arg-type]


def timed_ms(action: Callable[[], Any]) -> float:
    """Milliseconds of wall time."""
    began = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - began)


def measure(size: int, folder: str) -> dict[str, float]:
    """One line of the table."""
    database = open_database(f"sqlite:///{folder}/{size}.db", "coordinator")
    archive, slots, root = Archive(), [slot(number) for number in range(size)], _ZERO

    def file() -> None:
        with database.begin_rows() as rows:
            archive.file(rows, "m", root, slots)

    def commit() -> None:
        with database.begin_rows() as rows:
            rows.insert(BookRow, position=-1, base=-1, root=_ZERO, changes=b"")

    figures = {"commit_ms": timed_ms(commit)}
    figures["loop_ms"] = median(timed_ms(lambda: transcript_values(held())) for _ in range(9))
    root = os.urandom(32)
    figures["all_new_ms"] = timed_ms(file)
    writes = []
    for turn in range(ROUNDS):
        slots, root = list(slots), os.urandom(32)
        for number in range(turn * RENEWED, (turn + 1) * RENEWED):
            slots[number % size] = slot(number % size)
        writes.append(timed_ms(file))
    figures["renewed_10_ms"] = median(writes)
    figures["longest_ms"] = max(writes)
    with database.read() as session:
        parts = [len(session.get_one(BookRow, number).changes) for number in range(ROUNDS + 1)]
    figures["stored_bytes"], figures["whole_bytes"] = median(parts[1:]), max(parts)
    figures["published_ms"] = timed_ms(lambda: Books(database).published(root))
    database.close()
    return figures


def main() -> None:
    """Print the table and write `bench/out/transcripts.json`."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        table = {f"rows_{size}": measure(size, folder) for size in SIZES}
    names = list(next(iter(table.values())))
    print(f"{'':>12}" + "".join(f"{name:>16}" for name in names))
    for line, figures in table.items():
        print(f"{line:>12}" + "".join(f"{figures[name]:>16.2f}" for name in names))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"load": os.getloadavg()[0], **table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
