"""A second gateway process beside a local network's own, on one database; and keys for both."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from msgspec.structs import asdict

from pinaivu.errors import PinaivuError
from pinaivu.local.children import Child
from pinaivu.local.folder import MODEL
from pinaivu.local.network import Network
from pinaivu.local.private import PrivateGateway, Terms
from pinaivu.store.database import Database, open_database
from pinaivu.store.gateway_keys import create_key
from pinaivu.store.gateway_meters import forget, read_meter
from pinaivu.store.gateway_policy import Policy
from tests.e2e.stage import until


class SecondGateway(PrivateGateway):
    """A gateway with key files, ports and a grant of its own; its database is the network's."""

    def __init__(self, network: Network) -> None:
        folder = network.folder
        terms = Terms(
            state=folder.root / "second-gateway",
            rpc_url=network.chain.process.url,
            deployment=folder.deployment,
            models={MODEL: folder.model_files},
        )
        self._shared = folder.database("gateway")
        super().__init__(terms, network.chain.client, folder.key("payer"), print)

    @property
    def _database(self) -> str:
        return self._shared

    @property
    def child(self) -> Child:
        """Its process."""
        assert self._child is not None
        return self._child

    def serve(self) -> None:
        """Start it, and return once nodes have dialed it."""
        self.start()
        url = f"http://{self.listen}/ready"
        until("nodes at the second gateway", lambda: _status(url) == httpx.codes.OK)


@contextmanager
def second_gateway(network: Network) -> Iterator[SecondGateway]:
    """One that serves while the block runs."""
    made = SecondGateway(network)
    made.prepare()
    try:
        made.serve()
        yield made
    finally:
        made.stop()


class SharedKey:
    """An API key with limits, and how it is used at one of several gateways."""

    def __init__(self, network: Network, policy: Policy) -> None:
        self._database = network.folder.database("gateway")
        with self._opened() as database:
            made = create_key(
                database,
                payer=network.folder.key("payer").address,
                label="shared",
                random=os.urandom,
                now_ms=now_ms(),
                policy=policy,
            )
        self.key_id = made.key_id
        self.headers = {"authorization": f"Bearer {made.secret}"}

    def ask(self, url: str, script: str, *, max_tokens: int) -> httpx.Response:
        """A whole answer by this gateway, or its refusal."""
        body = _body(script, max_tokens)
        return httpx.post(f"{url}/chat/completions", json=body, headers=self.headers, timeout=60)

    @contextmanager
    def stream(self, url: str, script: str, *, max_tokens: int) -> Iterator[httpx.Response]:
        """A stream by this gateway, or its refusal; who leaves the block hangs up."""
        body = _body(script, max_tokens) | {"stream": True}
        with httpx.stream(
            "POST", f"{url}/chat/completions", json=body, headers=self.headers, timeout=60
        ) as response:
            if response.status_code != httpx.codes.OK:
                response.read()
            yield response

    def used(self, url: str) -> dict[str, Any]:
        """What the gateway says of today."""
        found = httpx.get(f"{url}/usage", headers=self.headers, timeout=30)
        today: dict[str, Any] = found.json()["today"]
        return today

    def audit(self) -> int:
        """That the meter holds all that requests and reservations come to; the day's tokens.

        It may hold more: of a stream that was cut it keeps what the gateway counted, where the
        receipt bills what was acknowledged.
        """
        with self._opened() as database, database.begin() as session:
            rows = database.rows_of(session)
            before = read_meter(rows, self.key_id, now_ms())
            forget(session, self.key_id)
            session.flush()
            after = read_meter(rows, self.key_id, now_ms())
        cached, counted = asdict(before), asdict(after)
        short = [name for name, most in cached.items() if most < counted[name]]
        assert not short, f"{cached} is cached, {counted} is counted"
        return after.day_tokens

    @contextmanager
    def _opened(self) -> Iterator[Database]:
        database = open_database(self._database, "gateway")
        try:
            yield database
        finally:
            database.close()


def now_ms() -> int:
    """The machine's clock, as gateways use it."""
    return time.time_ns() // 1_000_000


def code_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    return response.status_code, str(response.json()["error"]["code"])


def _body(script: str, max_tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Tell of the sea. {script}"}]
    return {"model": MODEL, "messages": messages, "max_tokens": max_tokens}


def _status(url: str) -> int:
    with suppress(httpx.HTTPError, PinaivuError):
        return httpx.get(url, timeout=10).status_code
    return 0
