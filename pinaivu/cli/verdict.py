"""`pinaivu verdict`: what a verifier of the quorum does, and how a log's operator uses it.

Judging is `pinaivu.attestation.judge`, which knows AWS's root only: no switch makes this command
sign for a simulated boot.
"""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pinaivu.attestation import judge, parse
from pinaivu.attestation.document import MEASURED_PCRS
from pinaivu.attestation.quorum import Quorum
from pinaivu.chain.calls import Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.quorum import quorum_state, seen_block, trust_in
from pinaivu.chain.transactor import Transactor
from pinaivu.cli.place import network_options, open_chain
from pinaivu.encoding import from_hex, parse_json, to_hex
from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.keyfiles import read_key
from pinaivu.keys import checksum
from pinaivu.manifest import Manifest, Parameters
from pinaivu.messages import Verdict
from pinaivu.typed_data import Signed, schema, signed_from_json

_file = click.Path(dir_okay=False, exists=True, path_type=Path)


@click.group("verdict")
def command() -> None:
    """Judge an enclave's boot, sign the verdict, put signatures together, activate the epoch.

    Verifiers work apart: each runs `judge` on what the log serves under /attestation and hands its
    signed verdict to the log's operator, who sends as many as are needed with `activate`.
    """


@command.command("judge")
@network_options
@click.argument("boot", type=_file)
@click.option(
    "--measurement",
    "measurements",
    multiple=True,
    required=True,
    help="Measurement of an image that you built yourself, 0x and 64 digits; may be repeated.",
)
@click.option(
    "--parameters",
    "parameters_file",
    type=_file,
    required=True,
    help="The parameters that you have read and vouch for, as JSON.",
)
@click.option("--key", "key_file", type=_file, help="Your key file; without it nothing is signed.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="For the signature.")
def judge_boot(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    boot: Path,
    measurements: tuple[str, ...],
    parameters_file: Path,
    key_file: Path | None,
    out: Path | None,
) -> None:
    """Check BOOT, say what it is, and sign the verdict if a key is given.

    BOOT is a file with the answer of the log's /attestation, whose `pending` is judged. Ask a chain
    endpoint of your own (--rpc): it says which block the document is younger than.
    """
    client = open_chain(network, rpc, deployment)
    document, manifest, parameters = _read_boot(boot)
    trusted = Parameters.from_json(_json(parameters_file)).digest()
    code = frozenset((from_hex(m, 32), trusted) for m in measurements)
    verdict = judge(
        document,
        manifest,
        parameters,
        trust=trust_in(client.deployment, code),
        block=seen_block(client, manifest.block.number),
        now_ms=time.time_ns() // 1_000_000,
    )
    _show(verdict, document, manifest)
    _show_pair(client, verdict)
    if key_file is None:
        click.echo("not signed: give your key file with --key")
        return
    signed = Signed.by(read_key(key_file), client.deployment.domain, verdict)
    _hand_over(json.dumps(signed.to_json(), indent=1) + "\n", out)


@command.command("evidence")
@network_options
@click.argument("signed", type=_file, nargs=-1, required=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
def evidence(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    signed: tuple[Path, ...],
    out: Path | None,
) -> None:
    """Put SIGNED verdicts together: verdict and evidence as the contract takes them, as JSON."""
    client = open_chain(network, rpc, deployment)
    verdict, together = _assembled(client, signed)
    message = schema(Verdict).to_json(verdict)
    _hand_over(json.dumps({"verdict": message, "evidence": to_hex(together)}, indent=1) + "\n", out)


@command.command("activate")
@network_options
@click.argument("signed", type=_file, nargs=-1, required=True)
@click.option("--key", "key_file", type=_file, required=True, help="The log operator's key file.")
def activate(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    signed: tuple[Path, ...],
    key_file: Path,
) -> None:
    """Put SIGNED verdicts together and start the log's next epoch; by the log's operator."""
    client = open_chain(network, rpc, deployment)
    call = Calls(client.deployment).activate(*_assembled(client, signed))
    sender = Transactor(client.rpc, client.deployment.chain_id, read_key(key_file))
    outcome = sender.send(call)
    click.echo(f"activated in block {outcome.block_number}, 0x{outcome.tx_hash.hex()}")


@command.command("members")
@network_options
def members(network: Path, rpc: str | None, deployment: Path | None) -> None:
    """Show whose signatures count now, and from when other ones will."""
    state = quorum_state(open_chain(network, rpc, deployment))
    click.echo(f"verifier {checksum(state.address)}")
    _show_quorum("in force", state.in_force)
    if state.pending:
        _show_quorum(f"in force from {_when(state.pending_from_ms)}", state.pending)


def _read_boot(path: Path) -> tuple[bytes, Manifest, Parameters]:
    answer = _json(path)
    boot = answer.get("pending") if isinstance(answer, dict) else None
    if not isinstance(boot, dict):
        raise Misconfigured(
            f"{path} holds no pending boot; fetch the log's /attestation again while its"
            " coordinator waits for activation"
        )
    try:
        document = bytes.fromhex(str(boot["document"]))
        manifest = Manifest.from_json(boot["manifest"])
        return document, manifest, Parameters.from_json(boot["parameters"])
    except (KeyError, ValueError) as error:
        raise InvalidEncoding(f"{path} holds no readable boot: {error}") from error


def _assembled(client: ChainClient, paths: tuple[Path, ...]) -> tuple[Verdict, bytes]:
    signed = [signed_from_json(Verdict, _json(path)) for path in paths]
    return quorum_state(client).in_force.evidence(client.deployment.domain, signed)


def _show(verdict: Verdict, document: bytes, manifest: Manifest) -> None:
    pcrs = parse(document).pcrs
    lines = {
        "log": to_hex(verdict.log_id),
        "key": checksum(verdict.key),
        "code version": manifest.code_version,
        **{f"PCR{index}": to_hex(pcrs[index]) for index in MEASURED_PCRS},
        "measurement": to_hex(verdict.measurement),
        "parameters": to_hex(verdict.parameters_digest),
        "manifest": to_hex(verdict.manifest_digest),
        "document": f"{to_hex(verdict.payload_digest)} made {_when(verdict.document_ms)}",
        "after block": f"{verdict.block_number} {to_hex(verdict.block_hash)}",
        "verdict until": _when(verdict.expires_ms),
    }
    for name, value in lines.items():
        click.echo(f"{name:14} {value}")


def _show_pair(client: ChainClient, verdict: Verdict) -> None:
    pair = client.pair(verdict.measurement, verdict.parameters_digest)
    if pair is None:
        said = "this code was never proposed: activation will be refused"
    elif pair.revoked_at_ms:
        said = f"pair {pair.index} was revoked {_when(pair.revoked_at_ms)}"
    else:
        said = f"pair {pair.index}, allowed from {_when(pair.allowed_from_ms)}"
    click.echo(f"{'on chain':14} {said}")


def _show_quorum(when: str, quorum: Quorum) -> None:
    click.echo(f"{quorum.threshold} of {len(quorum.members)} {when}")
    for member in sorted(quorum.members):
        click.echo(f"  {checksum(member)}")


def _hand_over(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="ascii")
        click.echo(f"written to {out}")


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _json(path: Path) -> Any:
    return parse_json(path.read_bytes())
