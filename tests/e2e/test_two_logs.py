"""Two logs on one machine: requests move to the second when the first is away, and back.

Two coordinators, each with its own log, operator, database and submitter; the nodes serve both, the
gateway uses both for a key with a payer at each. While somebody asks one thing after the other, the
first coordinator is killed or frozen, and comes back. Afterwards every base unit is accounted for.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from openai import InternalServerError

from pinaivu.codes import Reason
from pinaivu.encoding import to_hex
from pinaivu.local.chain import DEPOSIT
from pinaivu.local.folder import NODES
from pinaivu.local.logs import LocalLog
from pinaivu.local.payer import new_api_key
from pinaivu.messages import Completion, Job, Receipt
from pinaivu.typed_data import signed_from_bytes
from tests.e2e.audit import PublicLog
from tests.e2e.stage import Stage, request_id_of, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chain,
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"),
]

ENOUGH = 3
"""So many answers show where requests go."""
AT_ONCE = 2


@dataclass(frozen=True)
class Answered:
    """One answer: when it was asked for and had, by the monotonic clock, and who awarded it."""

    request_id: str
    log_id: bytes
    asked_s: float
    took_s: float


class Asking:
    """A few who ask, each one small thing after the other, until told to stop."""

    def __init__(self, stage: Stage) -> None:
        self.answered: list[Answered] = []
        self.errors: list[Exception] = []
        self._stage = stage
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(AT_ONCE)]

    @contextmanager
    def running(self) -> Iterator["Asking"]:
        """Ask while the block runs; all has been answered after it."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            asked = time.monotonic()
            try:
                request_id = request_id_of(self._stage.ask("Name a colour.", max_tokens=4))
            except Exception as error:  # noqa: BLE001 - what the client sees is the test's business
                self.errors.append(error)
                continue
            took = time.monotonic() - asked
            self.answered.append(Answered(request_id, self._log_of(request_id), asked, took))

    def _log_of(self, request_id: str) -> bytes:
        query = "SELECT job FROM request WHERE job_id = ?"
        ((job,),) = self._stage.gateway_rows(query, UUID(request_id).bytes)
        return signed_from_bytes(Job, job).message.log_id

    def await_answers(self, log: LocalLog) -> None:
        """Return once the log has awarded some that were asked for from now on."""
        since = time.monotonic()

        def look() -> bool:
            new = [a for a in self.answered if a.asked_s > since]
            return sum(a.log_id == log.log_id for a in new) >= ENOUGH

        until(f"answers by way of {log.coordinator}", look)


def _killed(stage: Stage) -> Callable[[], None]:
    stage.crash("coordinator")
    return stage.network.start_coordinator


def _frozen(stage: Stage) -> Callable[[], None]:
    pids = stage.pids("coordinator")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def thaw() -> None:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    return thaw


@pytest.mark.parametrize("take_away", [_killed, _frozen])
def test_requests_move_to_the_second_log_and_nothing_is_spent_twice(
    double_stage: Stage, tmp_path: Path, take_away: Callable[[Stage], Callable[[], None]]
) -> None:
    """Nobody who asks sees an error; each answer is charged once, by the log that awarded it."""
    stage = double_stage
    first, second = stage.network.logs
    known = {row[0] for row in stage.gateway_rows("SELECT job_id FROM request")}
    until("the gateway is connected to both logs", lambda: _connected(stage))
    with Asking(stage).running() as asking:
        asking.await_answers(first)
        away = time.monotonic()
        bring_back = take_away(stage)
        asking.await_answers(second)
        bring_back()
        asking.await_answers(first)

    assert asking.errors == []
    moved = min(a.asked_s + a.took_s for a in asking.answered if a.log_id == second.log_id) - away
    slowest = max(a.took_s for a in asking.answered)
    print(f"moved after {moved:.2f} s, slowest answer {slowest:.2f} s")  # noqa: T201 - a figure
    receipts = _receipts_since(stage, known)
    charged = sorted(str(UUID(bytes=r.job_id)) for r in receipts if r.total)
    assert charged == sorted(a.request_id for a in asking.answered)
    payers = {log.log_id: stage.network.folder.key(log.payer).address for log in stage.network.logs}
    assert {r.log_id: r.payer for r in receipts} == payers
    for log in stage.network.logs:
        _require_debited(stage, log)
        ours = next(r for r in receipts if r.log_id == log.log_id and r.total)
        _require_verified(stage, ours, tmp_path)


def test_a_request_whose_node_fails_leaves_a_killed_coordinator(double_stage: Stage) -> None:
    """The node says nothing more, and nobody is there to award the next: the second log does.

    Engines are held until then, so nothing is acknowledged; the job left behind costs nothing.
    """
    stage = double_stage
    first, second = stage.network.logs
    known = {row[0] for row in stage.gateway_rows("SELECT job_id FROM request")}
    until("the gateway is connected to both logs", lambda: _connected(stage))
    newest = stage.newest_job()
    with stage.frozen(*(stage.engine(name) for name in NODES)):
        stream = stage.stream("Name a colour.", max_tokens=4)
        left_behind, winner = stage.await_award(newest)
        bring_back = _killed(stage)
        with stage.frozen(*stage.pids(winner)):
            stage.await_award(left_behind)
    stream.ended()
    bring_back()
    charged = {r.job_id: r.log_id for r in _receipts_since(stage, known) if r.total}
    assert charged == {UUID(stream.request_id).bytes: second.log_id}
    left = stage.await_final(left_behind)
    assert (left.log_id, left.total) == (first.log_id, 0)
    stage.network.await_market()


def test_two_coordinators_never_book_a_slot_twice(double_stage: Stage) -> None:
    """Both sell the two slots of one node at once, each its own: both are used, none twice.

    When an order began and ended is in the node's completions. Who finds no slot gets a 503 and
    asks again; no award is ever refused, for want of a slot or else.
    """
    stage, (name, slots) = double_stage, ("node-1", 2)
    rows = "SELECT log_id, signed FROM completion"
    before = len(stage.node_rows(name, rows))
    known = {row[0] for row in stage.gateway_rows("SELECT job_id FROM request")}
    until("the gateway is connected to both logs", lambda: _connected(stage))
    node = to_hex(stage.network.folder.key(name).address)
    only: dict[str, object] = {"pinaivu": {"allow": [node]}}

    def ask(log: LocalLog) -> None:
        key = new_api_key(stage.network.folder, log.payer, [log.payer])
        customer = Stage(stage.network, key)
        for _ in range(ENOUGH):
            until("a slot is free", lambda: _served(customer, only))

    with ThreadPoolExecutor() as pool:
        customers = [pool.submit(ask, log) for log in stage.network.logs for _ in range(AT_ONCE)]
        for customer in customers:
            customer.result()

    until("every job has come to its end", lambda: _all_ended(stage, known))
    stored = stage.gateway_rows("SELECT job_id, signed FROM receipt")
    receipts = [signed_from_bytes(Receipt, row[1]).message for row in stored if row[0] not in known]
    segments = [segment for receipt in receipts for segment in receipt.segments if segment.rank]
    assert {segment.result for segment in segments} == {Reason.NONE}
    done = stage.node_rows(name, rows)[before:]
    assert len(done) == len(stage.network.logs) * AT_ONCE * ENOUGH
    assert _most_at_once(signed for _, signed in done) == slots
    for log in stage.network.logs:
        assert _most_at_once(signed for log_id, signed in done if log_id == log.log_id) == 1


def _served(stage: Stage, only: dict[str, object]) -> bool:
    """Whether a request found a slot."""
    try:
        stage.ask("Count to ten.", max_tokens=24, extra_body=only)
    except InternalServerError as error:
        if error.code not in ("no_nodes_available", "no_node_left"):
            raise
        time.sleep(0.5)  # as a client that retries; each try leaves a receipt
        return False
    return True


def _most_at_once(signed: Iterable[bytes]) -> int:
    """How many of the orders ran at the same moment, at most."""
    done = [signed_from_bytes(Completion, raw).message for raw in signed]
    return max(
        sum(other.started_ms <= one.started_ms < other.finished_ms for other in done)
        for one in done
    )


def _connected(stage: Stage) -> bool:
    health = httpx.get(f"{stage.network.gateway_url}/healthz", timeout=10).json()
    return all(health["logs"].values())


def _receipts_since(stage: Stage, known: set[bytes]) -> list[Receipt]:
    """The receipts of all jobs signed since, final; a job without one never reached its log."""
    rows = until("every job has come to its end", lambda: _all_ended(stage, known))
    return [
        stage.await_final(str(UUID(bytes=job_id))) for job_id, state in rows if state == "receipted"
    ]


def _all_ended(stage: Stage, known: set[bytes]) -> list[tuple[bytes, str]]:
    """Job and state of each request that is not known, once none of them is under way."""
    query = "SELECT job_id, state FROM request"
    rows = [row for row in stage.gateway_rows(query) if row[0] not in known]
    return rows if all(row[1] in ("receipted", "refused") for row in rows) else []


def _require_debited(stage: Stage, log: LocalLog) -> None:
    """What the log's payer lost on chain is the sum of its receipts there."""
    client = stage.network.chain.client
    with httpx.Client(base_url=log.url, timeout=30) as http:
        public = PublicLog(http)
        leaves = [leaf.message for leaf in public.leaves(public.size())]
    payer = stage.network.folder.key(log.payer).address
    total = sum(x.total for x in leaves if isinstance(x, Receipt) and x.payer == payer)
    assert total == DEPOSIT - client.payer(payer).balance > 0


def _require_verified(stage: Stage, receipt: Receipt, folder: Path) -> None:
    """`pinaivu verify` proves the request from the bundle that its holder gets."""
    request_id = str(UUID(bytes=receipt.job_id))
    bundle = folder / f"{request_id}.pnv"
    bundle.write_bytes(stage.get(f"/v1/receipts/{request_id}/bundle").content)
    command = [sys.executable, "-m", "pinaivu", "verify", str(bundle), "--public"]
    command += ["--rpc", stage.network.chain.process.url]
    command += ["--deployment", str(stage.network.folder.deployment)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
