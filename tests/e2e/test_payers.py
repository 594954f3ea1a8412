"""Who pays: hosted keys on one wallet, and a wallet with a gateway of its own, on the real network.

Every answer here passes the verifying client inside the official SDK, with the chain to ask.
"""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest

from pinaivu import client
from pinaivu.chain.facts import ContractFacts
from pinaivu.encoding import to_hex
from pinaivu.keyfiles import load_key
from pinaivu.local.folder import MODEL
from tests.e2e.stage import Stage, request_id_of, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.chain,
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::pinaivu.attestation.simulated.SimulatedDocumentWarning"),
]

LIMIT: Final = 10**6
_ASK: Final[dict[str, Any]] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Name three fruits."}],
    "max_tokens": 12,
    "temperature": 0,
}


def pinaivu(stage: Stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real command line, on the network's folder."""
    command = [sys.executable, "-m", "pinaivu", *arguments]
    command += ["--network", str(stage.network.folder.root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def trust(stage: Stage, **pins: Any) -> client.Trust:
    """The chain vouches; the attestation is SIMULATED."""
    chain = stage.network.chain.client
    policy = client.answers(chain.deployment.domain, simulated=True, **pins)
    return client.Trust(policy=policy, chain=lambda: ContractFacts(chain))


@contextmanager
def verified(stage: Stage, url: str, secret: str, keep: Path, **pins: Any) -> Iterator[Any]:
    """An SDK that hands over verified answers only, and keeps their bundles."""
    http: Any = client.verifying(trust(stage, **pins), within_s=60, keep=keep)
    with openai.OpenAI(base_url=url, api_key=secret, http_client=http, max_retries=0) as sdk:
        yield sdk


def ask(stage: Stage, url: str, secret: str, keep: Path, **pins: Any) -> str:
    """The id of one verified answer."""
    with verified(stage, url, secret, keep, **pins) as sdk:
        answer = sdk.chat.completions.create(**_ASK)
    assert answer.choices[0].message.content
    return request_id_of(answer)


def hosted_key(stage: Stage, limit: int = LIMIT) -> str:
    """A key on the gateway's own wallet, made by the command line."""
    payer = to_hex(stage.network.folder.key("payer").address)
    done = pinaivu(
        stage, "keys", "create", "--payer", payer, "--hosted", "--limit-units", str(limit)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1]


def account(stage: Stage, secret: str, kept: Path) -> subprocess.CompletedProcess[str]:
    """`pinaivu verify --account` for one holder, with what its client kept."""
    options = ["--api-key", secret, "--limit-units", str(LIMIT)]
    return pinaivu(stage, "verify", "--account", str(kept), *options)


def await_settled(stage: Stage, secret: str, request_id: str) -> None:
    """A request is settled and final, as its own key sees it."""
    headers = {"Authorization": f"Bearer {secret}"}
    url = f"{stage.network.gateway_url}/v1/receipts/{request_id}"

    def look() -> bool:
        found = httpx.get(url, headers=headers, timeout=30).json()
        return bool(found.get("settlement", {}).get("state") == "final")

    until(f"{request_id} is final", look)


def test_two_holders_of_one_wallet_each_prove_their_own_account(
    stage: Stage, tmp_path: Path
) -> None:
    """Gapless, within the limit, nobody else's; a key moved to another's account is found out."""
    mine, theirs = hosted_key(stage), hosted_key(stage)
    url = f"{stage.network.gateway_url}/v1"
    kept = {mine: tmp_path / "mine", theirs: tmp_path / "theirs"}
    for secret in (mine, theirs, mine):
        await_settled(stage, secret, ask(stage, url, secret, kept[secret]))
    for secret, number in ((mine, 2), (theirs, 1)):
        done = account(stage, secret, kept[secret])
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{number} receipt(s)" in done.stdout
        assert "sub-account" in done.stdout
    body = httpx.get(f"{url}/balance", headers={"Authorization": f"Bearer {mine}"}).json()
    spent = body["spent"]["units"]
    assert body["account"]["left"]["units"] == LIMIT - spent
    _bill_to(stage, theirs, mine)
    until("the gateway bills another account", lambda: _billed_to_other(stage, url, theirs))
    done = account(stage, mine, kept[mine])
    assert done.returncode == 0, "a request after my last one shows with my next one"
    await_settled(stage, mine, ask(stage, url, mine, kept[mine]))
    done = account(stage, mine, kept[mine])
    assert done.returncode == 1, done.stdout
    assert "FAILED" in done.stdout


def _bill_to(stage: Stage, secret: str, other: str) -> None:
    """The gateway lies: a key's requests go to another key's account from now on."""
    path = stage.network.folder.root / "databases" / "gateway.db"
    swap = (
        "UPDATE key_account SET secret = (SELECT a.secret FROM key_account a JOIN key k ON"
        " a.key_id = k.key_id WHERE k.shown = ?) WHERE key_id = (SELECT key_id FROM key WHERE"
        " shown = ?)"
    )
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute(swap, (other[:13] + "…", secret[:13] + "…"))


def _billed_to_other(stage: Stage, url: str, secret: str) -> bool:
    """One more request; whether it shows that the gateway has its new orders, which takes seconds.

    By an SDK that does not verify: in between, answer and bundle name two accounts (V4).
    """
    with openai.OpenAI(base_url=url, api_key=secret, max_retries=0) as sdk:
        request_id = request_id_of(sdk.chat.completions.create(**_ASK))
    await_settled(stage, secret, request_id)
    headers = {"Authorization": f"Bearer {secret}"}
    url = f"{stage.network.gateway_url}/v1/receipts/{request_id}"
    receipt = httpx.get(url, headers=headers, timeout=30).json()["receipt"]["message"]
    return int(receipt["accountCounter"]) == 3


def test_a_wallet_with_a_gateway_of_its_own_trusts_no_other(stage: Stage, tmp_path: Path) -> None:
    """From an empty wallet to proven answers by one command; run again, it is all still there."""
    key, state = tmp_path / "wallet.key", tmp_path / "private"
    places = ["--key", str(key)]
    for arguments in (
        ["faucet", "5"],
        ["deposit", "3"],
        ["assign", to_hex(stage.network.log_id)],
    ):
        done = pinaivu(stage, "wallet", *arguments, *places)
        assert done.returncode == 0, done.stderr
    wallet = load_key(key, os.urandom).address
    with private_gateway(stage, key, state) as (url, secret):
        request_id = ask(stage, url, secret, tmp_path / "kept", payer=wallet)
        with verified(stage, url, secret, tmp_path / "kept", payer=wallet) as sdk:
            streamed = list(sdk.chat.completions.create(**_ASK, stream=True))
        assert streamed[-1].choices[0].finish_reason
        headers = {"Authorization": f"Bearer {secret}"}
        body = httpx.get(f"{url}/balance", headers=headers, timeout=30).json()
        (shown,) = body["wallets"]
        assert shown["payer"] == to_hex(wallet)
        assert shown["deposit"]["source"].startswith("chain: block")
        accounted = shown["deposit"]["units"] - shown["pending"]["units"]
        assert accounted == 3_000_000 - body["spent"]["units"]
        gateway = ["--api-key", secret, "--gateway-url", url.removesuffix("/v1")]

        def proven() -> bool:
            done = pinaivu(stage, "verify", "--account", str(tmp_path / "kept"), *gateway)
            assert done.returncode in {0, 2}, done.stdout + done.stderr
            return done.returncode == 0

        until("all of the wallet's requests are proven", proven, within_s=180)
        done = pinaivu(stage, "verify", request_id, *gateway)
        assert done.returncode == 0, done.stdout
    with private_gateway(stage, key, state) as again:
        assert again == (url, secret)
        assert ask(stage, url, secret, tmp_path / "kept", payer=wallet)


def test_a_private_gateway_refuses_to_be_reached_from_outside(stage: Stage, tmp_path: Path) -> None:
    """Every other address is refused; so is a wallet that can't pay, with what to do."""
    for listen in ("0.0.0.0:8080", "192.0.2.1:8080", "example.org:80", "[::]:80"):
        done = pinaivu(stage, "gateway", "--local", "--listen", listen)
        assert done.returncode == 2, done.stdout
        assert "this machine alone" in done.stderr
    empty = ["--key", str(tmp_path / "empty.key"), "--state", str(tmp_path / "state")]
    done = pinaivu(stage, "gateway", "--local", *empty)
    assert done.returncode == 2
    assert "pinaivu wallet deposit" in done.stderr


@contextmanager
def private_gateway(stage: Stage, key: Path, state: Path) -> Iterator[tuple[str, str]]:
    """`pinaivu gateway --local` while the block runs: the base URL and the key it prints."""
    # A test run started with `&` ignores SIGINT, which programs then inherit.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "pinaivu", "gateway", "--local"]
    command += ["--network", str(stage.network.folder.root)]
    command += ["--key", str(key), "--state", str(state)]
    said = state.parent / "said.txt"
    with said.open("w+") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:

            def exports() -> dict[str, str]:
                assert child.poll() is None, said.read_text()
                lines = [line for line in said.read_text().splitlines() if "=" in line]
                found = dict(line.removeprefix("export ").split("=", 1) for line in lines)
                return found if "OPENAI_API_KEY" in found else {}

            found = until("the private gateway serves", exports, within_s=180)
            yield found["OPENAI_BASE_URL"], found["OPENAI_API_KEY"]
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(30)
