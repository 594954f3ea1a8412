"""`pinaivu gateway register`: who a gateway is and where nodes dial it, on chain."""

import os
from pathlib import Path

import click

from pinaivu.bindings import sign_peer_binding
from pinaivu.chain.calls import Calls
from pinaivu.chain.transactor import Transactor
from pinaivu.cli.place import network_options, open_chain
from pinaivu.codes import Role
from pinaivu.keyfiles import load_key
from pinaivu.keys import checksum, peer_id_of_point

_path = click.Path(dir_okay=False, path_type=Path)


@click.command("register")
@network_options
@click.option("--key", "key_file", type=_path, required=True, help="The gateway's key file.")
@click.option("--peer-key", type=_path, required=True, help="The gateway's peer key file.")
@click.option(
    "--endpoint",
    "endpoints",
    multiple=True,
    help="Multiaddr that nodes dial, such as /dns4/gw.example/tcp/4101; repeated.",
)
def register(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path,
    peer_key: Path,
    endpoints: tuple[str, ...],
) -> None:
    """Register a gateway, or change its peer or endpoints. Missing key files are made.

    The key's wallet sends the transaction and needs coin for gas.
    """
    client = open_chain(network, rpc, deployment)
    key, peer = load_key(key_file, os.urandom), load_key(peer_key, os.urandom)
    proof = sign_peer_binding(client.deployment.domain, key.address, Role.GATEWAY, peer)
    call = Calls(client.deployment).register_gateway(peer.point, list(endpoints), proof)
    outcome = Transactor(client.rpc, client.deployment.chain_id, key).send(call)
    click.echo(f"gateway  {checksum(key.address)}")
    click.echo(f"peer id  {peer_id_of_point(peer.point)}")
    click.echo(f"registered in block {outcome.block_number}, 0x{outcome.tx_hash.hex()}")
