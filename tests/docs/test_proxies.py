"""The proxies of the page for operators of gateways: its own blocks, run in front of a gateway.

What the blocks name is replaced: address and port, certificate (self-signed here), log. Behind them
runs a real gateway among scripted peers. A proxy is a child process of its own, ended by its pid.
"""

import os
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from shutil import which
from subprocess import STDOUT
from typing import Any, Final

import httpx
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pinaivu.codes import Reason, Status
from pinaivu.loopback import free_port
from tests.docs.pages import ROOT, Page
from tests.integration.gateway_support import QUICK, Network, network, request
from tests.integration.p2p_support import until
from tests.integration.scripted_node import Script, Work, speaks

pytestmark = pytest.mark.proxy

NAME: Final = "llm.example.org"
PAGE: Final = Page.read(ROOT / "docs" / "gateway-operator.md")
LIMITS: Final = QUICK.model_copy(update={"max_body_bytes": 1 << 20, "patience_s": 20})
NGINX: Final = """\
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{block}
}}
"""
CADDY: Final = "{{\nadmin off\nauto_https disable_redirects\n}}\n{block}"


def block_of(language: str) -> str:
    """The page's one block in this language."""
    (block,) = (block for block in PAGE.blocks if block.language == language)
    return block.text


def put(text: str, *pairs: tuple[str, str]) -> str:
    """The text with each thing replaced that it names."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def nginx(folder: Path, port: int, gateway: str) -> list[str]:
    """Its configuration with the page's block in it, and how it is started."""
    block = put(
        block_of("nginx"),
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        (f"/etc/letsencrypt/live/{NAME}/fullchain.pem", f"{folder}/cert.pem"),
        (f"/etc/letsencrypt/live/{NAME}/privkey.pem", f"{folder}/key.pem"),
        ("127.0.0.1:8080", gateway),
        ("/var/log/nginx/gateway.log", f"{folder}/access.log"),
    )
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, block=block))
    return ["nginx", "-p", str(folder), "-c", str(config), "-e", "stderr"]


def caddy(folder: Path, port: int, gateway: str) -> list[str]:
    """The same of Caddy, which would get a certificate by itself."""
    block = put(
        block_of("caddyfile"),
        (
            f"{NAME} {{",
            f"https://{NAME}:{port} {{\nbind 127.0.0.1\ntls {folder}/cert.pem {folder}/key.pem",
        ),
        ("127.0.0.1:8080", gateway),
    )
    config = folder / "Caddyfile"
    config.write_text(CADDY.format(block=block))
    return ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]


Proxy = Callable[[Path, int, str], list[str]]
Answers = AsyncGenerator[httpx.Response]


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest) -> Proxy:
    """Each of the page's proxies."""
    found: Proxy = request.param
    if which(found.__name__) is None:
        pytest.skip(f"{found.__name__} is missing: sudo apt-get install {found.__name__}")
    return found


@dataclass(frozen=True)
class Fronted:
    """A gateway's network behind a proxy, a client that trusts its certificate, its folder."""

    net: Network
    http: httpx.AsyncClient
    folder: Path

    @asynccontextmanager
    async def ask(self, headers: dict[str, str] | None = None, **more: Any) -> Answers:
        """A chat completion, not read yet; `more` changes the body."""
        async with self.http.stream(
            "POST",
            "/v1/chat/completions",
            json=request(**more),
            headers={"authorization": f"Bearer {self.net.secret}"} | (headers or {}),
            extensions={"sni_hostname": NAME},
        ) as response:
            yield response

    async def answer(self, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        """A chat completion, whole."""
        async with self.ask(headers, **more) as response:
            await response.aread()
        return response


@asynccontextmanager
async def fronted(
    folder: Path, proxy: Proxy, *scripts: Script, http2: bool = False, **key: Any
) -> AsyncGenerator[Fronted]:
    """A gateway among scripted peers, and the proxy before it; `key` are its key's limits."""
    write_certificate(folder)
    port, trusted = free_port(), ssl.create_default_context(cafile=str(folder / "cert.pem"))
    url, named = f"https://127.0.0.1:{port}", {"host": NAME}
    async with (
        await trio.open_file(folder / "said", "wb") as said,
        network(folder, *scripts, limits=LIMITS, key=key) as net,
        httpx.AsyncClient(
            base_url=url, headers=named, verify=trusted, http2=http2, timeout=30
        ) as http,
        trio.open_nursery() as nursery,
    ):
        running = partial(
            trio.run_process,
            proxy(folder, port, net.url.removeprefix("http://")),
            env={"HOME": str(folder), "PATH": os.environ["PATH"]},
            stdout=said.fileno(),
            stderr=STDOUT,
            check=False,
        )
        process: trio.Process = await nursery.start(running)
        try:
            await until(lambda: listens(process, port, folder))
            yield Fronted(net, http, folder)
        finally:
            process.terminate()


def listens(process: trio.Process, port: int, folder: Path) -> bool:
    """Whether it accepts connections; it must not have ended."""
    assert process.poll() is None, (folder / "said").read_text()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def write_certificate(folder: Path) -> None:
    """A self-signed certificate of the page's name, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    form, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, secret))


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_each_token_passes_as_it_comes(
    tmp_path: Path,
    proxy: Proxy,
    http2: bool,  # noqa: FBT001 - a case
) -> None:
    """The client has the first word while the node waits to be told to say the second."""
    go_on = trio.Event()

    async def told(work: Work) -> None:
        await work.say("One")
        await go_on.wait()
        await work.say(" more.", finish="stop")
        await work.end()

    async with (
        fronted(tmp_path, proxy, told, http2=http2) as front,
        front.ask(stream=True) as response,
    ):
        assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert response.headers["content-type"].startswith("text/event-stream")
        seen = ""
        async for text in response.aiter_text():
            seen += text
            if "One" in seen:
                assert not ({"more.", "[DONE]"} & set(seen.split('"')))
                go_on.set()
        assert go_on.is_set()
        assert seen.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("how", ["http1 stream", "http1 whole", "http2 stream", "http2 whole"])
async def test_a_client_that_leaves_stops_its_node(tmp_path: Path, proxy: Proxy, how: str) -> None:
    begun, stopped = trio.Event(), trio.Event()

    async def endless(work: Work) -> None:
        await work.say("One")
        begun.set()
        await work.wait_cancel()
        stopped.set()
        await work.end()

    async with fronted(tmp_path, proxy, endless, http2="http2" in how) as front:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(front.answer, stream="stream" in how))
            await begun.wait()
            nursery.cancel_scope.cancel()
        await front.http.aclose()  # it resets no single stream of HTTP/2
        with trio.fail_after(15):
            await stopped.wait()
        receipt = await front.net.receipt()
        assert (receipt.status, receipt.reason) == (Status.CANCELLED, Reason.CLIENT_GONE)


async def test_headers_pass_both_ways(tmp_path: Path, proxy: Proxy) -> None:
    """The key goes in and appears in no log; ids, cost, limits and `Retry-After` come out."""
    async with fronted(tmp_path, proxy, speaks("Well."), requests_per_minute=2) as front:
        named = {"idempotency-key": "once", "x-pinaivu-max-cost-units": "5000"}
        first, again = await front.answer(named), await front.answer(named)
        assert first.status_code == 200
        assert first.content == again.content
        assert front.net.coordinator.only.job.message.max_cost == 5000
        assert first.headers["x-request-id"] == first.json()["request_id"]
        for name in ("x-pinaivu-node", "x-pinaivu-cost", "x-ratelimit-remaining-requests"):
            assert first.headers[name], name
        while (refused := await front.answer()).status_code == 200:
            pass
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    for name in ("said", "access.log"):
        log = front.folder / name
        assert not log.exists() or front.net.secret not in log.read_text()


async def test_large_bodies_are_the_gateways_to_judge(tmp_path: Path, proxy: Proxy) -> None:
    """What it takes passes, and what is too large for it is refused in its words."""
    async with fronted(tmp_path, proxy, speaks("Well.")) as front:
        most = LIMITS.max_body_bytes
        taken = await front.answer(metadata={"note": "x" * (most - 4096)})
        assert taken.json()["choices"][0]["message"]["content"] == "Well."
        refused = await front.answer(metadata={"note": "x" * most})
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")


async def test_readiness_is_shown(tmp_path: Path, proxy: Proxy) -> None:
    async with fronted(tmp_path, proxy, speaks("Well.")) as front:
        found = await front.http.get("/ready", extensions={"sni_hostname": NAME})
        assert found.json() == {"status": "ready", "missing": []}
