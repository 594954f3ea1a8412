"""`pinaivu report`: bring signed evidence of a fault to the contract that decides it.

Nothing is believed of the files; the contract checks keys and signatures. It is asked without a
transaction first, so a report that would be refused costs nothing.
"""

from pathlib import Path

import click

from pinaivu.chain.abi import load
from pinaivu.chain.calls import Call, Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.events import LogReader
from pinaivu.checkpoints import claimed_checkpoint, parse_note
from pinaivu.cli.place import network_options, open_chain, parse_address, tokens
from pinaivu.cli.sending import require_accepted, send
from pinaivu.encoding import parse_json
from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.keyfiles import read_key
from pinaivu.keys import SecretKey, checksum
from pinaivu.messages import Checkpoint, Completion, Receipt
from pinaivu.typed_data import M, Signed, signed_from_json

_file = click.Path(dir_okay=False, exists=True, path_type=Path)
_key_option = click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Key file that pays the gas; anybody's. Without it nothing is sent, only asked.",
)
_reward_option = click.option("--reward-to", help="Gets the share; the key's own by default.")


@click.group("report")
def command() -> None:
    """Report a fault that signatures alone prove; anybody may, and gets a tenth of what is lost.

    A file holds one signed message as JSON, {"message": …, "signature": …}, as bundles and the
    log's receipt tiles hold them; a checkpoint may also be a note as the log serves it. Without
    --key the contract is only asked whether it would accept the report.

    A report can be copied from the mempool and sent first by somebody else, who then gets the
    share; the fault costs its author the same.
    """


@command.command("completions")
@network_options
@_key_option
@_reward_option
@click.argument("first", type=_file)
@click.argument("second", type=_file)
def completions(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path | None,
    reward_to: str | None,
    first: Path,
    second: Path,
) -> None:
    """FIRST and SECOND: two different completions of one node for one award. Costs its bond."""
    one, two = _signed(Completion, first), _signed(Completion, second)
    client = open_chain(network, rpc, deployment)
    key, payee = _reporter(client, key_file, reward_to)
    call = Calls(client.deployment).report_completions(one, two, payee)
    require_accepted(client, call)
    node = one.message.node
    click.echo(f"fault: {checksum(node)} completed award 0x{one.message.award_digest.hex()} twice")
    click.echo(f"bond at stake: {tokens(client.bond_of(node).amount)}")
    _submit(client, key, call)


@command.command("checkpoints")
@network_options
@_key_option
@_reward_option
@click.argument("first", type=_file)
@click.argument("second", type=_file)
def checkpoints(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path | None,
    reward_to: str | None,
    first: Path,
    second: Path,
) -> None:
    """FIRST and SECOND: two roots of one log at one size, of any epochs. Costs its reserve."""
    one, two = _checkpoint(first), _checkpoint(second)
    client = open_chain(network, rpc, deployment)
    key, payee = _reporter(client, key_file, reward_to)
    call = Calls(client.deployment).report_checkpoints(one, two, payee)
    require_accepted(client, call)
    log_id, size = one.message.log_id, one.message.size
    click.echo(f"fault: log 0x{log_id.hex()} has two roots at size {size}")
    click.echo(f"reserve at stake: {tokens(client.log_state(log_id).reserve)}")
    _submit(client, key, call)


@command.command("receipt")
@network_options
@_key_option
@_reward_option
@click.argument("file", type=_file)
def receipt(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path | None,
    reward_to: str | None,
    file: Path,
) -> None:
    """FILE: a receipt whose total is not the sum of its segments. Costs the log's reserve."""
    signed = _signed(Receipt, file)
    client = open_chain(network, rpc, deployment)
    key, payee = _reporter(client, key_file, reward_to)
    call = Calls(client.deployment).report_receipt(signed, payee)
    require_accepted(client, call)
    said, log_id = signed.message.total, signed.message.log_id
    due = sum(segment.amount for segment in signed.message.segments)
    click.echo(f"fault: a receipt of log 0x{log_id.hex()} says {said} and comes to {due}")
    click.echo(f"reserve at stake: {tokens(client.log_state(log_id).reserve)}")
    _submit(client, key, call)


def _reporter(
    client: ChainClient, key_file: Path | None, reward_to: str | None
) -> tuple[SecretKey | None, bytes]:
    """The key, if one is given, and who gets the share; for a mere question anybody will do."""
    key = read_key(key_file) if key_file else None
    if reward_to:
        return key, parse_address(reward_to)
    return key, key.address if key else client.deployment.objective_faults


def _submit(client: ChainClient, key: SecretKey | None, call: Call) -> None:
    if key is None:
        click.echo("the contract accepts this; nothing was sent: name a key that pays with --key")
        return
    outcome = send(client, key, call)
    reader = LogReader(client.rpc, {call.to: load("ObjectiveFaults")})
    (event,) = reader.decode(list(outcome.logs))
    said = event.arguments
    click.echo(
        f"slashed {tokens(said['slashed'])}, of which {tokens(said['reward'])} to"
        f" {checksum(said['rewardTo'])}"
    )


def _signed(cls: type[M], path: Path) -> Signed[M]:
    """The signed message in a file; a log's tiles add its type, which must be the right one."""
    try:
        raw = parse_json(path.read_bytes())
        if isinstance(raw, dict) and raw.get("type") == cls.__name__:
            del raw["type"]
        return signed_from_json(cls, raw)
    except InvalidEncoding as error:
        raise Misconfigured(f"{path} holds no signed {cls.__name__}: {error}") from error


def _checkpoint(path: Path) -> Signed[Checkpoint]:
    raw = path.read_bytes()
    if raw.lstrip().startswith(b"{"):
        return _signed(Checkpoint, path)
    try:
        return claimed_checkpoint(parse_note(raw.decode("utf-8", errors="replace")))
    except InvalidEncoding as error:
        raise Misconfigured(f"{path} is neither JSON nor a checkpoint note: {error}") from error
