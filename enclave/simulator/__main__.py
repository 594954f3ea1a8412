r"""Boot with a SIMULATED security module, for a network on one machine.

    python -m enclave.simulator --parameters FILE --chain-id N [--rpc URL] --contracts JSON \
        --log-id HEX -- COMMAND…

The only difference from `enclave.boot` is the module that is handed in; every line says so.
"""

import logging
import os
import sys
import time
from collections.abc import Sequence

from enclave.blocks import JsonRpcBlocks
from enclave.boot import failed, run
from enclave.options import boot_parser, parse_boot_options
from enclave.simulator.nsm import SimulatedNsm
from pinaivu.errors import PinaivuError


def main(argv: Sequence[str]) -> int:
    """Everything as in production boot, but for the module that is handed in."""
    logging.basicConfig(level=logging.INFO, format="boot (SIMULATED): %(message)s")
    parser = boot_parser("python -m enclave.simulator")
    parser.add_argument(
        "--rpc", metavar="URL", help="the chain's JSON-RPC server; default: the parameters' rpc"
    )
    try:
        options, namespace = parse_boot_options(parser, argv)
    except PinaivuError as error:
        return failed(error)
    servers = [endpoint.url for endpoint in options.parameters.rpc]
    blocks = JsonRpcBlocks(
        [namespace.rpc] if namespace.rpc else servers,
        chain_id=options.deployment.chain_id,
        finality_blocks=options.parameters.finality_blocks,
    )
    nsm = SimulatedNsm(now_ms=lambda: time.time_ns() // 1_000_000, random=os.urandom)
    return run(options, nsm=nsm, blocks=blocks, system_random=os.urandom)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
