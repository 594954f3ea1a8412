"""`pinaivu gateway`: one's own private gateway, and what a gateway's operator does on chain.

The service of an operator is `python -m gateway`.
"""

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Final

import click

from pinaivu.cli.gateway_register import register
from pinaivu.cli.place import (
    network_options,
    open_chain,
    open_folder,
    parse_tokens,
    rpc_url,
)
from pinaivu.errors import TransportFailure
from pinaivu.grants import Caps
from pinaivu.keyfiles import load_key
from pinaivu.local.folder import MODEL
from pinaivu.local.private import PrivateGateway, Terms, parse_models, require_loopback

_NODES_WITHIN_S: Final = 30.0


@click.group("gateway", invoke_without_command=True)
@click.pass_context
@network_options
@click.option("--local", is_flag=True, help="A private gateway for this machine's user.")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for its keys, database and log.  [default: private-gateway in the network's]",
)
@click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The key file of the wallet that pays; the demo payer's by default.",
)
@click.option("--listen", default="", help="HOST:PORT of this machine alone; a free one else.")
@click.option("--p2p-listen", default="", help="Multiaddr to listen on for nodes.")
@click.option("--p2p-announce", default="", help="Multiaddr that nodes are told to dial.")
@click.option(
    "--model",
    "models",
    multiple=True,
    help="NAME=FOLDER of its tokenizer files; the network's model by default. Repeatable.",
)
@click.option("--per-day", default="10", show_default=True, help="Most tokens a day.")
@click.option("--per-job", default="1", show_default=True, help="Most tokens a request.")
@click.option("--total", default="100", show_default=True, help="Most tokens ever.")
@click.option("--max-price", default=20_000_000, show_default=True, help="Base units per million.")
def command(
    context: click.Context,
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    state: Path | None,
    key_file: Path | None,
    listen: str,
    p2p_listen: str,
    p2p_announce: str,
    models: tuple[str, ...],
    per_day: str,
    per_job: str,
    total: str,
    max_price: int,
    *,
    local: bool,
) -> None:
    """Run a private gateway with your own wallet (--local), or register an operator's.

    --local makes its keys, registers on chain, signs the wallet's grant to itself, serves on this
    machine alone and says what to give to an OpenAI SDK. What is there already is left as it is;
    Ctrl-C ends it.
    """
    if context.invoked_subcommand:
        return
    if not local:
        raise click.UsageError(
            "say --local; an operator's gateway is `python -m gateway --config FILE`"
            " (docs/gateway-operator.md)"
        )
    if listen:
        require_loopback(listen)
    client = open_chain(network, rpc, deployment)
    wallet = load_key(key_file or open_folder(network).key_path("payer"), os.urandom)
    caps = Caps(
        per_job=parse_tokens(per_job),
        per_day=parse_tokens(per_day),
        total=parse_tokens(total),
        max_price=max_price,
    )
    terms = Terms(
        state=state or open_folder(network).root / "private-gateway",
        rpc_url=rpc_url(network, rpc),
        deployment=deployment or open_folder(network).deployment,
        models=parse_models(models) or {MODEL: open_folder(network).model_files},
        caps=caps,
        listen=listen,
        p2p_listen=p2p_listen,
        p2p_announce=p2p_announce,
    )
    _run(PrivateGateway(terms, client, wallet, lambda text: click.echo(text, err=True)))


def _run(gateway: PrivateGateway) -> None:
    secret = gateway.prepare()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        gateway.start()
        _await_nodes(gateway)
        click.echo(f"export OPENAI_BASE_URL={gateway.base_url}")
        click.echo(f"export OPENAI_API_KEY={secret}")
        while True:
            gateway.require_running()
            time.sleep(0.5)
    except KeyboardInterrupt:
        click.echo("", err=True)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one Ctrl-C is enough
        gateway.stop()


def _await_nodes(gateway: PrivateGateway) -> None:
    """Wait a little for the first node to dial; it is said if none does."""
    end = time.monotonic() + _NODES_WITHIN_S
    while time.monotonic() < end:
        gateway.require_running()
        try:
            if gateway.health()["node_peers"]:
                return
        except TransportFailure:
            pass  # between two answers
        time.sleep(0.2)
    click.echo(
        "no node has dialed yet: is the announced address reachable, and do the market's nodes"
        " serve every registered gateway (`all_gateways`)?",
        err=True,
    )


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


command.add_command(register)
