"""What it costs to count a request against its key's limits.

    python -m bench.quotas [DATABASE_URL]

Each request of a limited key is let in by one transaction and settled by another. Measured are
both beside a bare hop to a thread and back, which is what this machine's load makes of nothing,
alone and with eight at once, on SQLite in a temporary folder or on the database of the URL,
whose tables are made. Prints a table and writes bench/out/quotas.json.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import trio

from gateway.quotas import Quotas
from pinaivu.store.database import open_database
from pinaivu.store.gateway_keys import create_key
from pinaivu.store.gateway_policy import Policy
from pinaivu.store.writer import open_writer

REQUESTS: Final = 800
WARM_UP: Final = 80
AT_ONCE: Final = (1, 8)
_MANY: Final = 10**12
LIMITED: Final = Policy(
    requests_per_minute=_MANY,
    tokens_per_minute=_MANY,
    streams=_MANY,
    daily_tokens=_MANY,
    monthly_units=_MANY,
)


def now_ms() -> int:
    """The machine's clock."""
    return time.time_ns() // 1_000_000


def percentile(times: list[float], share: float) -> float:
    """A percentile in milliseconds."""
    return round(sorted(times)[int(len(times) * share)] * 1000, 3)


async def measure(url: str, at_once: int) -> dict[str, float]:
    """Times of REQUESTS requests of one key, so many at once."""
    database = open_database(url, "gateway")
    key = create_key(
        database,
        payer=bytes(20),
        label="bench",
        random=os.urandom,
        now_ms=now_ms(),
        policy=LIMITED,
    ).key_id
    hops: list[float] = []
    begins: list[float] = []
    ends: list[float] = []
    async with open_writer(database) as writer:
        quotas = Quotas(writer, now_ms, os.urandom)
        await quotas.enter()

        async def serve(requests: int) -> None:
            for _ in range(requests):
                called = time.perf_counter()
                await trio.to_thread.run_sync(lambda: None)
                began = time.perf_counter()
                held = await quotas.reserve(key, LIMITED, 100, 100)
                let_in = time.perf_counter()
                await quotas.settle(held, (10, 10))
                hops.append(began - called)
                begins.append(let_in - began)
                ends.append(time.perf_counter() - let_in)

        await serve(WARM_UP)
        hops.clear()
        begins.clear()
        ends.clear()
        cpu, began = time.process_time(), time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(serve, REQUESTS // at_once)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    database.close()
    return {
        "hop_ms_p50": percentile(hops, 0.5),
        "begin_ms_p50": percentile(begins, 0.5),
        "begin_ms_p95": percentile(begins, 0.95),
        "settle_ms_p50": percentile(ends, 0.5),
        "settle_ms_p95": percentile(ends, 0.95),
        "cpu_ms_per_request": round(cpu / REQUESTS * 1000, 3),
        "requests_per_s": round(REQUESTS / took),
    }


def main() -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory() as folder:
        url = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/gateway.db"
        found = {str(count): trio.run(measure, url, count) for count in AT_ONCE}
    load = round(os.getloadavg()[0], 1)
    print(f"{url.partition(':')[0]}, load {load} on {os.cpu_count()} cores")
    for count, figures in found.items():
        print(f"{count} at once: " + ", ".join(f"{k} {v}" for k, v in figures.items()))
    out = Path(__file__).parent / "out" / "quotas.json"
    out.parent.mkdir(exist_ok=True)
    document = {"database": url.partition(":")[0], "load": load, "at_once": found}
    out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
