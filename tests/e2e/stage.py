"""What end-to-end tests do to a running local network, and how they see where it stands.

Nothing here waits for a fixed time: `until` polls a condition. Processes are held at a point by
SIGSTOP and crashed by SIGKILL; what is durable is read from the coordinator's and the gateway's
databases, which the tests only read.
"""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import httpx
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from pinaivu.local.folder import MODEL, NODES
from pinaivu.local.network import Network
from pinaivu.messages import Receipt
from pinaivu.typed_data import Signed, signed_from_json

T = TypeVar("T")
PATIENCE_S: Final = 90.0
_POLL_S: Final = 0.02
_ASK_S: Final = 0.2  # what takes a request to see, and comes in seconds


def until(
    what: str,
    look: Callable[[], T | None],
    *,
    within_s: float = PATIENCE_S,
    every_s: float = _POLL_S,
) -> T:
    """The first value of `look` that is neither None nor false; fails with `what` otherwise."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(every_s)
    raise AssertionError(f"not within {within_s:.0f} s: {what}")


class Stage:
    """One network and one API key on it."""

    def __init__(self, network: Network, api_key: str) -> None:
        self.network = network
        self.api_key = api_key
        self.sdk = OpenAI(
            base_url=f"{network.gateway_url}/v1", api_key=api_key, max_retries=0, timeout=120
        )
        self._node_names = {network.folder.key(name).address: name for name in NODES}

    # Requests

    def ask(self, prompt: str, **more: Any) -> ChatCompletion:
        """A whole answer, not streamed."""
        answer: ChatCompletion = self.sdk.chat.completions.create(**_body(prompt, **more))
        return answer

    def stream(self, prompt: str, **more: Any) -> "Streaming":
        """A streamed answer, read by a thread of its own from now on."""
        return Streaming(self.sdk, _body(prompt, **more))

    # What everybody can see

    def get(self, path: str) -> httpx.Response:
        """GET from the gateway with our key."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        return httpx.get(self.network.gateway_url + path, headers=headers, timeout=30)

    def receipt(self, request_id: str) -> tuple[Signed[Receipt], str] | None:
        """A request's receipt and the state of its settlement, or None while there is none."""
        answer = self.get(f"/v1/receipts/{request_id}")
        if answer.status_code != httpx.codes.OK:
            return None
        found = answer.json()
        assert "problem" not in found, found["problem"]
        return signed_from_json(Receipt, found["receipt"]), found["settlement"]["state"]

    def await_receipt(self, request_id: str) -> Receipt:
        """The receipt, once the gateway has it."""
        found = until(
            f"a receipt of {request_id}", lambda: self.receipt(request_id), every_s=_ASK_S
        )
        return found[0].message

    def await_final(self, request_id: str) -> Receipt:
        """The receipt, once it is settled and final; and that it is the only one of its job."""

        def look() -> Receipt | None:
            found = self.receipt(request_id)
            return found[0].message if found and found[1] == "final" else None

        receipt = until(f"{request_id} is final on chain", look, every_s=_ASK_S)
        (log,) = (log for log in self.network.logs if log.log_id == receipt.log_id)
        public = httpx.get(f"{log.url}/receipts/{request_id}", timeout=30).json()
        assert len(public["receipts"]) == 1
        return receipt

    # What is durable inside

    def coordinator_rows(self, query: str, *parameters: Any) -> list[Any]:
        """Rows of the coordinator's database."""
        return _rows(self.network.folder.root / "databases" / "coordinator.db", query, parameters)

    def gateway_rows(self, query: str, *parameters: Any) -> list[Any]:
        """Rows of the gateway's database."""
        return _rows(self.network.folder.root / "databases" / "gateway.db", query, parameters)

    def node_rows(self, name: str, query: str, *parameters: Any) -> list[Any]:
        """Rows of a node's database."""
        return _rows(self.network.folder.root / "databases" / f"{name}.db", query, parameters)

    def newest_job(self) -> str | None:
        """The request id of the newest job the gateway knows."""
        found = self.gateway_rows("SELECT job_id FROM request ORDER BY created_ms DESC LIMIT 1")
        return str(UUID(bytes=found[0][0])) if found else None

    def await_award(self, known: str | None) -> tuple[str, str]:
        """Request id and winner's name of the next job after `known`, once its award is durable."""

        def look() -> tuple[str, str] | None:
            newest = self.newest_job()
            if newest is None or newest == known:
                return None
            winner = self.winner(newest)
            return (newest, winner) if winner else None

        return until("an award", look)

    def winner(self, request_id: str, rank: int = 1) -> str | None:
        """The name of the node that has the award of a rank."""
        found = self.gateway_rows(
            "SELECT award FROM attempt WHERE job_id = ? AND rank = ?", UUID(request_id).bytes, rank
        )
        if not found:
            return None
        return next(name for node, name in self._node_names.items() if node in found[0][0])

    def name_of(self, node: bytes) -> str:
        """The name of the node with this address."""
        return self._node_names[node]

    # Processes

    def crash(self, name: str) -> None:
        """SIGKILL a process of the network."""
        self.network.children[name].kill()

    def revive_node(self, name: str) -> None:
        """Start a node again, and wait until all offers stand."""
        self.network.start_node(name)
        self.network.await_market()

    @contextmanager
    def frozen(self, *pids: int) -> Iterator[None]:
        """Processes that do nothing meanwhile."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                _signal(pid, signal.SIGCONT)

    def pids(self, name: str) -> list[int]:
        """A process of the network and all its descendants."""
        return _with_descendants(self.network.children[name].pid)

    def engine(self, node: str) -> int:
        """The engine of a node, not the tether that holds it and names it, too."""
        return [pid for pid in self.pids(node) if b"llamacpp_server" in _command_line(pid)][-1]


class Streaming:
    """A stream being read by a thread: chunks as they come, and how it ended."""

    def __init__(self, sdk: OpenAI, body: dict[str, Any]) -> None:
        self.chunks: list[ChatCompletionChunk] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._read, args=(sdk, body), daemon=True)
        self._thread.start()

    def _read(self, sdk: OpenAI, body: dict[str, Any]) -> None:
        try:
            with sdk.chat.completions.create(**body, stream=True) as stream:
                for chunk in stream:
                    self.chunks.append(chunk)
        except Exception as error:  # noqa: BLE001 - what the client sees is the test's business
            self.error = error

    @property
    def text(self) -> str:
        """The answer so far."""
        pieces = (chunk.choices[0].delta.content for chunk in self.chunks if chunk.choices)
        return "".join(piece or "" for piece in pieces)

    @property
    def finish_reason(self) -> str | None:
        """The finish reason, once there was one."""
        reasons = (chunk.choices[0].finish_reason for chunk in self.chunks if chunk.choices)
        return next((reason for reason in reasons if reason), None)

    @property
    def request_id(self) -> str:
        """As the last chunk says."""
        assert self.error is None, self.error
        return request_id_of(self.chunks[-1])

    def await_text(self, characters: int = 1) -> None:
        """Return once so much of the answer is there; the stream must not have ended before."""

        def look() -> bool:
            assert self.error is None, self.error
            return len(self.text) >= characters

        until("text of the answer", look)
        assert self._thread.is_alive(), "the stream ended too soon for this test"

    def ended(self) -> "Streaming":
        """This, once the stream has ended one way or another."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the stream does not end"
        return self


def request_id_of(answer: ChatCompletion | ChatCompletionChunk) -> str:
    """The request id at the top level of an answer or of its last chunk."""
    return str((answer.model_extra or {})["request_id"])


def _body(prompt: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": MODEL, "messages": messages, "temperature": 0} | more


def _rows(path: Path, query: str, parameters: tuple[Any, ...]) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(query, parameters).fetchall()


def _with_descendants(pid: int) -> list[int]:
    below = [child for child, parent in _parents().items() if parent == pid]
    return [pid, *(deeper for child in below for deeper in _with_descendants(child))]


def _parents() -> dict[int, int]:
    """Every process's parent, by pid."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            after_name = stat.read_text().rpartition(")")[2].split()
            found[int(stat.parent.name)] = int(after_name[1])
    return found


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
