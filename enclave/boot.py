"""Boot of a coordinator: keys are born, attested and handed over, and nothing else ever has them.

In order: refuse debug mode; draw the key set from the security module's entropy mixed with the
kernel's; read a recent block; write the manifest; ask for the attestation; start the coordinator
with the identity in its pipe; stay as its supervisor. Every boot is a new epoch: there is nothing
to seal and nothing to restore here.

    python -m enclave.boot --parameters FILE --chain-id N --contracts JSON --log-id HEX -- COMMAND…

This entry opens /dev/nsm or ends; no argument or variable selects anything else. It reads no
environment. What it does not do: prove its own document (others do, and must) or register it.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from hashlib import shake_256
from typing import Final

from enclave.blocks import BlockSource, JsonRpcBlocks
from enclave.device import NsmDevice
from enclave.nsm import Nsm
from enclave.options import BootOptions, Deployment, boot_parser, parse_boot_options
from enclave.supervisor import supervise
from pinaivu import __version__
from pinaivu.attestation import measurement
from pinaivu.attestation.document import MEASURED_PCRS
from pinaivu.encoding import to_hex
from pinaivu.epoch_identity import EpochIdentity, note_public
from pinaivu.errors import InvalidEncoding, Misconfigured, PinaivuError, TransportFailure
from pinaivu.keys import SecretKey, checksum
from pinaivu.manifest import Manifest, Parameters

EXIT_FAILED: Final = 70
EXIT_UNREACHABLE: Final = 75
EXIT_MISCONFIGURED: Final = 78
"""Of sysexits.h, so that they stay apart from the coordinator's own codes, which boot repeats."""

_ENTROPY_BYTES: Final = 64
_ENTROPY_DOMAIN: Final = b"pinaivu boot entropy v1\0"
_LOG: Final = logging.getLogger("enclave.boot")

Random = Callable[[int], bytes]


def mixed_random(nsm: Nsm, system: Random) -> Random:
    """Bytes that are unpredictable as long as either source is; each draw asks both afresh."""

    def draw(count: int) -> bytes:
        sources = nsm.random(_ENTROPY_BYTES) + system(_ENTROPY_BYTES)
        return shake_256(_ENTROPY_DOMAIN + sources).digest(count)

    return draw


def birth(
    *,
    nsm: Nsm,
    blocks: BlockSource,
    deployment: Deployment,
    parameters: Parameters,
    system_random: Random,
) -> EpochIdentity:
    """A new epoch's identity, attested by `nsm`.

    Raises `Misconfigured` in debug mode or for another chain, `TransportFailure` when security
    module or chain don't answer.
    """
    _require_production_mode(nsm)
    random = mixed_random(nsm, system_random)
    signing, peer, note = SecretKey.generate(random), SecretKey.generate(random), random(32)
    manifest = Manifest(
        chain_id=deployment.chain_id,
        settlement=deployment.settlement,
        receipt_log=deployment.receipt_log,
        enclave_registry=deployment.enclave_registry,
        node_registry=deployment.node_registry,
        model_registry=deployment.model_registry,
        log_id=deployment.log_id,
        code_version=__version__,
        signing_key=signing.compressed,
        note_key=note_public(note),
        peer_key=peer.compressed,
        parameters_digest=parameters.digest(),
        block=blocks.latest(),
    )
    document = nsm.attest(
        public_key=manifest.signing_key, user_data=manifest.digest(), nonce=manifest.block.hash
    )
    return EpochIdentity(
        signing_secret=signing,
        note_secret=note,
        peer_secret=peer,
        manifest=manifest,
        parameters=parameters,
        document=document,
    )


def run(options: BootOptions, *, nsm: Nsm, blocks: BlockSource, system_random: Random) -> int:
    """Boot and supervise; the coordinator's exit code, or one of this module's with a message."""
    try:
        identity = birth(
            nsm=nsm,
            blocks=blocks,
            deployment=options.deployment,
            parameters=options.parameters,
            system_random=system_random,
        )
        _LOG.info(
            "measurement %s, signing key of %s, block %d",
            to_hex(measurement(nsm.pcrs())),
            checksum(identity.signing_secret.address),
            identity.manifest.block.number,
        )
        return supervise(options.command, identity)
    except PinaivuError as error:
        return failed(error)


def failed(error: PinaivuError) -> int:
    """Say what went wrong, and the exit code that tells whose turn it is."""
    _LOG.error("%s", error)
    if isinstance(error, Misconfigured | InvalidEncoding):
        return EXIT_MISCONFIGURED
    return EXIT_UNREACHABLE if isinstance(error, TransportFailure) else EXIT_FAILED


def main(argv: Sequence[str]) -> int:
    """The production entry: the real security module, RPC servers from the measured parameters."""
    logging.basicConfig(level=logging.INFO, format="boot: %(message)s")
    try:
        options = parse_boot_options(boot_parser("python -m enclave.boot"), argv)[0]
        blocks = JsonRpcBlocks(
            [endpoint.url for endpoint in options.parameters.rpc],
            chain_id=options.deployment.chain_id,
            finality_blocks=options.parameters.finality_blocks,
        )
        with NsmDevice.open() as nsm:
            return run(options, nsm=nsm, blocks=blocks, system_random=os.urandom)
    except PinaivuError as error:
        return failed(error)


def _require_production_mode(nsm: Nsm) -> None:
    registers = nsm.pcrs()
    if not all(any(registers.get(index, b"")) for index in MEASURED_PCRS):
        raise Misconfigured(
            "PCR0-2 are zero: the enclave was started in debug mode, and nobody would accept its"
            " attestation; start it without --debug-mode"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
