"""`pinaivu up`: the whole network on this machine, and a first request from prompt to payout."""

import signal
import sys
import time
import warnings
from pathlib import Path
from types import FrameType

import click

from pinaivu.chain.facts import ContractFacts
from pinaivu.cli.place import DEFAULT_FOLDER, tokens
from pinaivu.keys import checksum
from pinaivu.local import demo
from pinaivu.local.folder import MODEL, NODES, Folder
from pinaivu.local.network import Network
from pinaivu.local.payer import ensure_grant, new_api_key
from pinaivu.messages import Receipt
from pinaivu.tokens import Tokenizer
from pinaivu.verify import SimulatedDocumentWarning
from pinaivu.verify.case import Copies
from pinaivu.verify.policy import development
from pinaivu.verify.verifier import Verifier


@click.command("up")
@click.option(
    "--network",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(DEFAULT_FOLDER),
    show_default=True,
    help="Folder for keys, chain state, databases and logs; an existing one is gone on with.",
)
@click.option("--once", is_flag=True, help="End after the first verified and settled request.")
def command(folder: Path, *, once: bool) -> None:
    """Start a whole network on this machine and send a first request through it.

    Chain, coordinator (SIMULATED attestation), gateway, three nodes with a real small model, and
    the explorer; play money on a local chain. Ctrl-C ends everything; starting again goes on from
    the folder's state.
    """
    started = time.monotonic()

    def say(text: str) -> None:
        click.secho(f"[{time.monotonic() - started:5.1f} s] {text}", fg="cyan", err=True)

    signal.signal(signal.SIGTERM, _interrupt)
    network = Network(Folder(folder), say)
    try:
        network.start()
        say("explorer")
        network.start_explorer()
        grant = ensure_grant(network.folder, network.chain.client, network.log_id)
        api_key = new_api_key(network.folder, "demo")
        say(f"market open: {len(NODES)} nodes, payer {checksum(grant.message.payer)}")
        code = _first_request(network, api_key)
        say(f"from start to verified: {time.monotonic() - started:.0f} s")
        if code:
            raise click.exceptions.Exit(code)
        if not once:
            _leave_running(network, api_key)
    except KeyboardInterrupt:
        click.echo("", err=True)
    finally:
        say("stopping")
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one Ctrl-C is enough
        network.stop()
        say("stopped; state is kept in " + str(folder))


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _first_request(network: Network, api_key: str) -> int:
    """Ask, settle, pay out, verify; the verification's exit code."""
    demo.pay_out(network)  # whatever earlier runs left unpaid
    before = demo.read_wallets(network)
    _title(f"prompt ({MODEL}, through the OpenAI SDK)")
    click.echo(demo.PROMPT)
    _title("answer")
    answered = demo.ask(network, api_key, click_out)
    _title("receipt")
    click.echo("waiting until it is settled on chain …", err=True)
    signed, index = demo.await_receipt(network, api_key, answered.request_id)
    names = {network.folder.key(name).address: name for name in NODES}
    for line in demo.describe(signed.message, index, names):
        click.echo(line)
    click.echo(f"first token  {answered.first_token_s * 1000:.0f} ms, all {answered.total_s:.2f} s")
    _title("settlement (read from the chain)")
    said = demo.settlement_of(network, index)
    click.echo(f"batch {said['sequence']} with leaves {said['prevSize']} to {said['newSize'] - 1}")
    click.echo(f"block {said['block']}, transaction 0x{said['transaction'].hex()}")
    demo.pay_out(network)
    paid = _show_wallets(network, before, signed.message)
    code = _verify(network, api_key, answered)
    return code or (0 if paid else 1)


def click_out(text: str, end: str = "\n") -> None:
    """Print and flush, so that a stream is seen as it comes."""
    click.echo(text, nl=bool(end))
    sys.stdout.flush()


def _show_wallets(network: Network, before: demo.Wallets, receipt: Receipt) -> bool:
    """Payout wallets before and after; whether each difference is what the receipt says."""
    after = demo.read_wallets(network)
    _title("payout wallets (token balances read from the chain)")
    good = True
    for name in NODES:
        node = network.folder.key(name).address
        due = sum(s.amount - s.fee for s in receipt.segments if s.node == node)
        got = after.held[name] - before.held[name]
        good = good and got == due
        mark = "=" if got == due else "≠"
        click.echo(
            f"{name}  before {tokens(before.held[name])}  after {tokens(after.held[name])}  "
            f"difference {tokens(got)} {mark} {tokens(due)} by the receipt"
        )
    return good


def _verify(network: Network, api_key: str, answered: demo.Answered) -> int:
    client = network.chain.client
    raw = demo.bundle(network, api_key, answered.request_id)
    path = network.folder.root / "bundles" / f"{answered.request_id}.pnv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    copies = Copies(
        request=answered.body, tokenizer=Tokenizer.from_directory(network.folder.model_files)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimulatedDocumentWarning)  # the report says it itself
        verifier = Verifier(development(client.deployment.domain), ContractFacts(client))
        report = verifier.verify(raw, copies)
    _title("verification")
    click.echo(report.to_text(), nl=False)
    click.echo(f"bundle: {path} ({len(raw)} bytes)")
    return report.exit_code


def _leave_running(network: Network, api_key: str) -> None:
    base = f"{network.gateway_url}/v1"
    _title("the network is running; Ctrl-C ends it")
    click.echo(f"explorer   {network.explorer_url}")
    click.echo(f"API key    {api_key}")
    click.echo(f"""
curl {base}/chat/completions -H 'Authorization: Bearer {api_key}' \\
  -H 'Content-Type: application/json' \\
  -d '{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "Name three fruits."}}]}}'

from openai import OpenAI
client = OpenAI(base_url="{base}", api_key="{api_key}")
answer = client.chat.completions.create(
    model="{MODEL}", max_tokens=60,
    messages=[{{"role": "user", "content": "What is the capital of Japan?"}}])
print(answer.choices[0].message.content, answer.request_id)
""")
    while True:
        for child in network.children.values():
            child.require_running()
        time.sleep(0.5)


def _title(text: str) -> None:
    click.secho(f"\n── {text} ──", bold=True)
