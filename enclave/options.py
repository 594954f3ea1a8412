"""What boot is told on its command line: where the log belongs, by which rules, and what to start.

    --parameters FILE --chain-id N --contracts JSON --log-id HEX -- COMMAND…

None of it is secret, and all but the command stands in the manifest, so that a host which lies here
makes a manifest that no verifier accepts. No environment variable is read.
"""

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pinaivu.encoding import from_hex, parse_json
from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.manifest import Parameters

CONTRACTS: Final = (
    "settlement",
    "receipt_log",
    "enclave_registry",
    "node_registry",
    "model_registry",
)
_ADDRESS_BYTES: Final = 20
_LOG_ID_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The chain, the contracts (20-byte addresses) and the log (32-byte id) a boot is for."""

    chain_id: int
    settlement: bytes
    receipt_log: bytes
    enclave_registry: bytes
    node_registry: bytes
    model_registry: bytes
    log_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BootOptions:
    """Everything boot is told."""

    deployment: Deployment
    parameters: Parameters
    command: tuple[str, ...]


def boot_parser(prog: str) -> ArgumentParser:
    """The options every boot understands; an entry point may add its own."""
    parser = ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        usage="%(prog)s [options] -- COMMAND [ARGUMENT...]",
        description="Make and attest an epoch's keys, then start COMMAND and hand them over: it is"
        " given --identity-fd N, a pipe to read them from. Ends with COMMAND's exit code.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--parameters", metavar="FILE", type=Path, required=True, help="the parameters, as JSON"
    )
    parser.add_argument("--chain-id", metavar="N", type=int, required=True)
    parser.add_argument(
        "--contracts",
        metavar="JSON",
        required=True,
        help=f"an object of 0x addresses: {', '.join(CONTRACTS)}",
    )
    parser.add_argument("--log-id", metavar="HEX", required=True, help="0x and 64 hex digits")
    return parser


def parse_boot_options(
    parser: ArgumentParser, argv: Sequence[str]
) -> tuple[BootOptions, Namespace]:
    """The options and, for an entry point's own ones, the whole namespace.

    Raises `Misconfigured` naming the option that makes no sense; usage errors end the process
    with 2, as argparse has it.
    """
    ours, command = _split(argv)
    namespace = parser.parse_args(ours)
    if not command:
        parser.error("no COMMAND after --")
    options = BootOptions(
        deployment=_deployment(namespace),
        parameters=_parameters(namespace.parameters),
        command=command,
    )
    return options, namespace


def _split(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    words = list(argv)
    if "--" not in words:
        return words, ()
    border = words.index("--")
    return words[:border], tuple(words[border + 1 :])


def _deployment(namespace: Namespace) -> Deployment:
    try:
        addresses = _addresses(namespace.contracts)
    except InvalidEncoding as error:
        raise Misconfigured(f"--contracts: {error}") from error
    try:
        log_id = from_hex(namespace.log_id, _LOG_ID_BYTES)
    except InvalidEncoding as error:
        raise Misconfigured(f"--log-id: {error}") from error
    return Deployment(chain_id=namespace.chain_id, log_id=log_id, **addresses)


def _addresses(text: str) -> dict[str, bytes]:
    contracts = parse_json(text.encode("utf-8", "surrogateescape"))
    if not isinstance(contracts, dict) or contracts.keys() != set(CONTRACTS):
        raise InvalidEncoding(f"not an object of exactly {', '.join(CONTRACTS)}")
    return {name: from_hex(contracts[name], _ADDRESS_BYTES) for name in CONTRACTS}


def _parameters(path: Path) -> Parameters:
    try:
        return Parameters.from_json(parse_json(path.read_bytes()))
    except OSError as error:
        raise Misconfigured(f"--parameters: {path} can't be read: {error.strerror}") from error
    except InvalidEncoding as error:
        raise Misconfigured(f"--parameters: {path}: {error}") from error
