"""A gateway's process in operation: what it leaves behind, what it logs, how it stops.

Canary strings are planted in prompt, answer and API key of requests through the whole real path.
They are looked for, as they are, as hex and as base64, in every file that the network has written
(databases with their write-ahead logs, logs, batches, the chain's state), in the environment and
command line of its processes, and in all that is served without a key. With PostgreSQL that is the
server's whole folder: `pg_wal`, what is left of deleted rows, and the log of a server that logs
every statement with its parameters. Only the engine is scripted; compressed copies would not be
found.
"""

import base64
import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import create_engine, text

from bench.gateway_processes import Stage, stage
from pinaivu import bundles
from pinaivu.local.folder import MODEL, NODES, Folder
from pinaivu.store.gateway_policy import Policy
from tests.databases import Server, postgres_server
from tests.e2e.second_gateway import SecondGateway, SharedKey, code_of, now_ms, second_gateway
from tests.e2e.stage import _with_descendants, until

pytestmark = [pytest.mark.e2e, pytest.mark.chain, pytest.mark.timeout(600)]

TELLS_ALL = "-c fsync=off -c log_statement=all -c log_parameter_max_length=-1"
CONTENTS = (
    "SELECT request.body, request.response, claim.answer FROM request"
    " JOIN claim ON claim.job_id = request.job_id WHERE request.job_id = :job_id"
)


class OnPostgres(Folder):
    """A network's folder, whose services keep their databases on a PostgreSQL server."""

    def __init__(self, root: Path, server: Server) -> None:
        super().__init__(root)
        self.server = server
        self._urls: dict[str, str] = {}

    def database(self, name: str) -> str:
        """A service's database URL; the database is made when first asked for."""
        if name not in self._urls:
            self._urls[name] = self.server.create(name)
        return self._urls[name]


class Canaries:
    """Strings that occur nowhere unless somebody keeps them."""

    def __init__(self) -> None:
        self.prompt = f"prompt{secrets.token_hex(12)}end"
        self.answer = self.prompt[::-1]

    def ask(self, running: Stage, how: str, *, streams: bool, **more: str) -> httpx.Response:
        """One request with the canary at its end; `more` are headers."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"Please {how} {self.prompt}"}],
            "max_tokens": 64,
            "stream": streams,
        }
        port, key = running.doors["standing"]
        return httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {key}"} | more,
            timeout=60,
        )


@contextmanager
def _staged(folder: Path, home: Callable[[Path], Folder]) -> Iterator[Stage]:
    """A network that keeps no content and tells everything it ever tells."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PINAIVU_GATEWAY_LIMITS", '{"content_hours": 0}')
        environment.setenv("PINAIVU_GATEWAY_LOG_LEVEL", "DEBUG")
        environment.setenv("PINAIVU_GATEWAY_LOG_FORMAT", "json")
        with stage(folder, print, litellm=False, home=home) as made:
            yield made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The network on SQLite, as it comes."""
    with _staged(tmp_path_factory.mktemp("canaries"), Folder) as made:
        yield made


@pytest.fixture(scope="module")
def running_on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The network with all its databases on a PostgreSQL server of its own."""
    folder = tmp_path_factory.mktemp("canaries-postgres")
    with (
        postgres_server(TELLS_ALL) as server,
        _staged(folder, partial(OnPostgres, server=server)) as made,
    ):
        yield made


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.database)])
def anywhere(request: pytest.FixtureRequest) -> Stage:
    """The network on either database."""
    on_postgres = request.param == "postgres"
    found: Stage = request.getfixturevalue("running_on_postgres" if on_postgres else "running")
    return found


def test_no_canary_is_found_anywhere(anywhere: Stage) -> None:
    running = anywhere
    canaries = Canaries()
    for streams in (False, True):
        response = canaries.ask(running, "reverse", streams=streams)
        assert response.status_code == 200, response.text
        assert canaries.answer in _said(response, streams=streams)
    refused = canaries.ask(running, "refuse", streams=False)
    assert refused.status_code == 422
    assert canaries.prompt in refused.text  # its own client is told
    _leave_in_the_middle(running, canaries)
    _settle(running)
    key = running.doors["standing"][1]
    for planted in (canaries.prompt, canaries.answer, key):
        assert _files_with(running, planted) == set()
        assert _processes_with(running, planted) == []
        assert _public_pages_with(running, planted) == []


def test_every_process_that_holds_content_makes_no_core_dump(running: Stage) -> None:
    for name in ("gateway", *NODES):
        pid = running.network.children[name].pid
        limits = Path(f"/proc/{pid}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"]


def test_every_log_line_is_an_object_and_one_tells_of_the_request(running: Stage) -> None:
    response = Canaries().ask(running, "reverse", streams=False)
    request_id = response.json()["request_id"]
    log = running.network.folder.log("gateway")

    def told() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return [line for line in lines if line.get("request_id") == request_id]

    (line,) = until("the request's line", told)
    assert (line["model"], line["outcome"]) == (MODEL, "complete")
    assert (line["attempts"], line["streams"]) == (["none"], False)
    for counted in ("prompt_tokens", "output_tokens", "units", "first_token_ms", "total_ms"):
        assert int(str(line[counted])) > 0


def test_kept_content_is_its_holders_alone(
    anywhere: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key's holder gets it back, and the same answer again; no file shows a word of it."""
    running, canaries = anywhere, Canaries()
    _restart_gateway(running, monkeypatch, content_hours=24)
    ask = partial(canaries.ask, running, "reverse", streams=False, **{"idempotency-key": "twice"})
    response = ask()
    assert ask().content == response.content
    request_id = response.json()["request_id"]
    _settle(running)
    kept = json.dumps(_held(running, request_id))
    assert canaries.prompt in kept
    assert canaries.answer in kept
    sealed = [content for content in _contents(running, request_id) if content]
    assert len(sealed) == 3
    for content in sealed:
        assert _files_with(running, content)  # so the search sees what is there
    for planted in (canaries.prompt, canaries.answer, running.doors["standing"][1]):
        assert _files_with(running, planted) == set()
    _restart_gateway(running, monkeypatch, content_hours=0)
    until("it is kept no more", lambda: _contents(running, request_id) == [None, None, None])
    assert _held(running, request_id).keys() == {"salt"}
    if not isinstance(running.network.folder, OnPostgres):  # there vacuum and recycling take time
        for content in sealed:
            until("no trace is left", lambda content=content: not _files_with(running, content))  # type: ignore[misc]


@pytest.fixture(scope="module")
def other(running_on_postgres: Stage) -> Iterator[SecondGateway]:
    """A second gateway of the network on PostgreSQL, on the same database."""
    with second_gateway(running_on_postgres.network) as made:
        yield made


@pytest.mark.database
def test_two_gateways_use_a_cap_up_and_never_exceed_it(
    running_on_postgres: Stage, other: SecondGateway
) -> None:
    """Both are asked by four clients at once until nothing is left; rates hold together, too."""
    cap, most, rate = 700, 40, 60
    key = SharedKey(running_on_postgres.network, Policy(daily_tokens=cap, requests_per_minute=rate))
    urls = [f"{running_on_postgres.network.gateway_url}/v1", other.base_url]

    def race(url: str) -> list[dict[str, int]]:
        served = list[dict[str, int]]()
        while True:
            response = key.ask(url, "script 5 0", max_tokens=most)
            if response.status_code != httpx.codes.OK:
                assert code_of(response) == (429, "quota_exceeded")
                return served
            served.append(response.json()["usage"])

    with ThreadPoolExecutor() as pool:
        by_gateway = list(pool.map(race, urls * 4))
    assert all(any(by_gateway[number::2]) for number in (0, 1))  # both have served
    usage = [one for served in by_gateway for one in served]
    while (last := key.ask(urls[0], "script 5 0", max_tokens=most)).is_success:
        usage.append(last.json()["usage"])  # what was given back after the refusals
    spent = sum(one["total_tokens"] for one in usage)
    assert cap - most - usage[0]["prompt_tokens"] < spent <= cap
    assert [key.used(url)["tokens"] for url in urls] == [spent, spent]
    assert len(usage) <= rate
    assert key.audit() == spent


@pytest.mark.database
def test_two_gateways_share_a_rate(running_on_postgres: Stage, other: SecondGateway) -> None:
    rate = 6
    key = SharedKey(running_on_postgres.network, Policy(requests_per_minute=rate))
    urls = [f"{running_on_postgres.network.gateway_url}/v1", other.base_url]
    began = now_ms() // 60_000
    with ThreadPoolExecutor() as pool:
        said = Counter(
            pool.map(lambda url: key.ask(url, "script 1 0", max_tokens=4).status_code, urls * rate)
        )
    minutes = now_ms() // 60_000 - began + 1
    assert set(said) == {200, 429}
    assert rate <= said[200] <= minutes * rate


@pytest.mark.database
def test_a_killed_gateway_keeps_no_stream_and_gives_nothing_away(
    running_on_postgres: Stage, other: SecondGateway
) -> None:
    """Its streams count until its lease is over; the most its requests may have used, longer.

    Restarted, it sees to its receipts, and what they did not use is given back.
    """
    most, cap = 60, 300
    key = SharedKey(running_on_postgres.network, Policy(streams=2, daily_tokens=cap))
    stays, dies = f"{running_on_postgres.network.gateway_url}/v1", other.base_url
    start = partial(key.stream, script="script 60 2000", max_tokens=most)
    refused, chunks = (429, "too_many_streams"), list[Iterator[bytes]]()
    with ExitStack() as stack:
        for url in (stays, dies):
            chunks.append(stack.enter_context(start(url)).iter_bytes())
            assert next(chunks[-1])
        for url in (stays, dies):
            assert code_of(stack.enter_context(start(url))) == refused
        other.child.kill()
        assert code_of(stack.enter_context(start(stays))) == refused

        def let_in() -> bool:
            return key.ask(stays, "script 1 0", max_tokens=1).is_success

        until("its stream is given back", let_in)
        held = key.audit()
        left = cap - held
        assert left < cap - 2 * most  # what both may use is still set aside
        assert code_of(key.ask(stays, "script 1 0", max_tokens=left + 1)) == (429, "quota_exceeded")
    other.serve()
    until("all is given back", lambda: key.used(stays)["reserved_tokens"] == 0)
    assert key.audit() == key.used(dies)["tokens"] < held


def test_a_gateway_that_is_told_to_stop_lets_a_stream_end(running: Stage) -> None:
    """SIGTERM to the process: not ready, nothing new, the running answer whole, exit code 0."""
    gateway, url = running.network.children["gateway"], running.network.gateway_url
    port, key = running.doors["standing"]
    headers = {"authorization": f"Bearer {key}"}
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Tell of the sea. script 100 60"}],
        "max_tokens": 100,
        "stream": True,
    }
    ask = f"http://127.0.0.1:{port}/v1/chat/completions"
    with httpx.stream("POST", ask, json=body, headers=headers, timeout=60) as response:
        chunks = response.iter_bytes()
        text = next(chunks)
        os.kill(gateway.pid, signal.SIGTERM)
        until("it is not ready", lambda: httpx.get(f"{url}/ready", timeout=10).status_code == 503)
        assert httpx.get(f"{url}/ready", timeout=10).json()["status"] == "draining"
        refused = httpx.post(ask, json=body, headers=headers, timeout=10)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert int(refused.headers["retry-after"]) > 0
        assert b"[DONE]" not in text
        text += b"".join(chunks)
    assert text.endswith(b"data: [DONE]\n\n")
    gateway.wait_until_done(within_s=60)
    running.network.start_gateway()


def _restart_gateway(
    running: Stage, monkeypatch: pytest.MonkeyPatch, *, content_hours: int
) -> None:
    monkeypatch.setenv("PINAIVU_GATEWAY_LIMITS", json.dumps({"content_hours": content_hours}))
    running.network.children["gateway"].stop()
    running.network.start_gateway()
    url = f"{running.network.gateway_url}/ready"
    until("the gateway is ready", lambda: httpx.get(url, timeout=10).status_code == 200)


def _leave_in_the_middle(running: Stage, canaries: Canaries) -> None:
    port, key = running.doors["standing"]
    prompt = f"{canaries.prompt} script 500 20"
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "stream": True}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    headers = {"authorization": f"Bearer {key}"}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as response:
        assert next(response.iter_bytes())


def _settle(running: Stage) -> None:
    """Wait until every request has its receipt."""
    url = f"{running.network.gateway_url}/health"
    until("all receipts", lambda: httpx.get(url, timeout=10).json()["awaiting_receipts"] == 0)


def _said(response: httpx.Response, *, streams: bool) -> str:
    if not streams:
        return str(response.json()["choices"][0]["message"]["content"])
    lines = [
        line.removeprefix("data: ") for line in response.text.splitlines() if "choices" in line
    ]
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def _held(running: Stage, request_id: str) -> dict[str, Any]:
    """What the bundle of a request holds for the key's holder, once there is one."""
    port, key = running.doors["standing"]
    url = f"http://127.0.0.1:{port}/v1/receipts/{request_id}/bundle"
    content = _served(url, {"authorization": f"Bearer {key}"})
    holder: dict[str, Any] = bundles.unpack(content)["holder"]
    return holder


def _served(url: str, headers: dict[str, str] | None = None) -> bytes:
    """What a URL serves, once it does: a bundle takes a checkpoint after its receipt."""

    def look() -> bytes | None:
        found = httpx.get(url, headers=headers, timeout=10)
        return found.content if found.status_code == httpx.codes.OK else None

    return until(url, look)


def _contents(running: Stage, request_id: str) -> list[bytes | None]:
    (row,) = _gateway_rows(running, CONTENTS, job_id=UUID(request_id).bytes)
    return list(row)


def _gateway_rows(running: Stage, query: str, **parameters: Any) -> list[Any]:
    engine = create_engine(running.network.folder.database("gateway"))
    try:
        with engine.connect() as connection:
            return list(connection.execute(text(query), parameters))
    finally:
        engine.dispose()


def _files_with(running: Stage, planted: str | bytes) -> set[str]:
    """Names of the files that hold the string in any of its forms, or the bytes."""
    folder = running.network.folder
    roots = [folder.root]
    if isinstance(folder, OnPostgres):
        folder.server.command("CHECKPOINT")  # what is in the server's memory is on disk now
        roots.append(folder.server.folder)
    forms = _forms(planted) if isinstance(planted, str) else [planted]
    return {
        str(path.relative_to(root))
        for root in roots
        for path in root.rglob("*")
        if any(form in _content(path) for form in forms)
    }


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:  # a snapshot that has been replaced meanwhile
        return b""


def _forms(planted: str) -> list[bytes]:
    raw = planted.encode()
    forms = [raw, raw.hex().encode(), raw.hex().upper().encode()]
    for shift in range(3):  # base64 of it, at any place of a longer text
        coded = base64.b64encode(b"\0" * shift + raw)
        forms.append(coded[4 * (shift > 0) : len(raw) * 4 // 3 - 4])
        forms.append(forms[-1].replace(b"+", b"-").replace(b"/", b"_"))
    return forms


def _processes_with(running: Stage, planted: str) -> list[str]:
    """Processes of the network that have it in their environment or command line."""
    raw = planted.encode()
    return [
        f"{place} of {name}"
        for name, child in running.network.children.items()
        for pid in _with_descendants(child.pid)
        for place in ("environ", "cmdline")
        if raw in _told_by_the_kernel(pid, place)
    ]


def _told_by_the_kernel(pid: int, place: str) -> bytes:
    """What its user's other processes can read of a process: of one that isn't dumpable, little."""
    try:
        return Path(f"/proc/{pid}/{place}").read_bytes()
    except PermissionError:
        return b""


def _public_pages_with(running: Stage, planted: str) -> list[str]:
    """What is served without a key: the gateway's, and the log's with every receipt's bundle."""
    network = running.network
    pages = [f"{network.gateway_url}/{name}" for name in ("health", "ready")]
    pages += [f"{network.log_url}/{name}" for name in ("market", "attestation", "checkpoint")]
    receipts = _gateway_rows(running, "SELECT job_id FROM receipt")
    assert receipts
    gateway = network.folder.key("gateway").address.hex()
    for (job_id,) in receipts:
        pages.append(f"{network.log_url}/receipts/{UUID(bytes=job_id)}")
        pages.append(f"{network.log_url}/bundles/0x{gateway}/{UUID(bytes=job_id)}")
    raw = planted.encode()
    return [url for url in pages if raw in _page(url)]


def _page(url: str) -> bytes:
    """What a URL serves; a bundle unpacked."""
    content = _served(url)
    return repr(bundles.unpack(content)).encode() if "/bundles/" in url else content
