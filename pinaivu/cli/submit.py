"""`pinaivu submit`: settle a published batch with nothing but a copy of it and a gas key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import httpx

from pinaivu.batch_copies import BatchCopy
from pinaivu.chain.calls import Calls
from pinaivu.chain.client import ChainClient
from pinaivu.chain.fees import FeePolicy, gas_limit
from pinaivu.chain.submission import Submission, prepare, shortfalls
from pinaivu.chain.transactor import Transactor, TxOutcome
from pinaivu.cli.place import network_options, open_chain, tokens
from pinaivu.encoding import parse_json
from pinaivu.errors import InvalidEncoding, Misconfigured, TransportFailure
from pinaivu.keyfiles import read_key
from pinaivu.keys import checksum
from pinaivu.merkle.tiled import TiledTree
from pinaivu.merkle.tiles import Tile
from pinaivu.messages import Batch
from pinaivu.settlement import unpack_rows
from pinaivu.typed_data import Signed, signed_from_bytes, signed_from_json

Published = tuple[Signed[Batch], list[bytes] | None]
"""A signed batch, and its consistency proof where the copy has one."""

_WEI = 10**18
_MOST_BYTES = 256 << 20
"""Of one server, all its answers together."""
_MOST_PAGES = 1000


@click.command("submit")
@network_options
@click.option(
    "--key",
    "key_file",
    required=True,
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Key file of the wallet that pays the gas; anybody's will do.",
)
@click.option("--tiles", help="URL or folder with a copy of the log's tiles, to make proofs from.")
@click.option("--check", is_flag=True, help="Check only; send nothing.")
@click.argument("batch")
def command(
    network: Path,
    rpc: str | None,
    deployment: Path | None,
    key_file: Path,
    tiles: str | None,
    batch: str,
    *,
    check: bool,
) -> None:
    """Settle BATCH: a file with a signed batch, a folder of such files, or its log server's URL.

    Nodes and gateways keep the batches with receipts of theirs, proofs inside, one folder for each
    log: batches/0x<log id>/<sequence>.json. A file may also be what a log server gives at /batches,
    or a batch in its wire form; without a proof inside, --tiles says where the log's tiles are. No
    service of the operator has to run. Batches that the chain has already are passed over, unless
    there is no other.
    """
    client = open_chain(network, rpc, deployment)
    published = _from_log(client, batch) if _is_url(batch) else _from_file(Path(batch))
    sender = Transactor(client.rpc, client.deployment.chain_id, read_key(key_file))
    for signed, proof in _unsettled(client, published):
        ready = _prepared(client, signed, proof, tiles)
        call = ready.call(Calls(client.deployment))
        if check:
            gas = gas_limit(client.rpc, sender.address, call, FeePolicy(gas_margin_permille=0))
            click.echo(f"batch {signed.message.sequence} can be settled now, for {gas} gas")
            return  # the next ones build on it
        outcome = sender.send(call)
        _tell(client, signed.message, outcome)


def _unsettled(client: ChainClient, published: Sequence[Published]) -> list[Published]:
    """In order; all if the chain has every one, so that the first one's error says so."""
    ordered = sorted(published, key=lambda entry: entry[0].message.sequence)
    if not ordered:
        raise Misconfigured("there is no batch in it; ask a node or gateway for a copy")
    logs = {signed.message.log_id for signed, _ in ordered}
    if len(logs) != 1:
        raise Misconfigured(f"it has batches of {len(logs)} logs; submit those of one at a time")
    last = client.log_state(logs.pop()).sequence
    return [entry for entry in ordered if entry[0].message.sequence > last] or ordered[-1:]


def _prepared(
    client: ChainClient, signed: Signed[Batch], proof: list[bytes] | None, tiles: str | None
) -> Submission:
    def find(old_size: int, new_size: int) -> Sequence[bytes]:
        if tiles is not None:
            tree = TiledTree(new_size, lambda tile: _tile(tiles, tile))
            return tree.consistency_proof(old_size, new_size)
        if proof is None and old_size:
            raise Misconfigured("the copy has no consistency proof; name the log's --tiles")
        return proof or []

    return prepare(client, signed, find)


def _tell(client: ChainClient, batch: Batch, outcome: TxOutcome) -> None:
    debits, credits_ = unpack_rows(batch.debits), unpack_rows(batch.credits)
    cost = outcome.gas_used * outcome.gas_price
    click.echo(f"settled     batch {batch.sequence} of log 0x{batch.log_id.hex()}")
    click.echo(f"leaves      {batch.prev_size} to {batch.new_size - 1}")
    click.echo(f"debits      {tokens(sum(debits.values()))} from {len(debits)} payers")
    click.echo(f"credits     {tokens(sum(credits_.values()))} to {len(credits_)} nodes")
    click.echo(f"fees        {tokens(batch.fees)}")
    for gap in shortfalls(client, outcome):
        click.echo(
            f"short       {checksum(gap.payer)}: reserve lent {tokens(gap.covered)},"
            f" unpaid {tokens(gap.uncovered)}"
        )
    click.echo(f"cost        {outcome.gas_used} gas, {cost / _WEI:.9f} coins")
    click.echo(f"transaction 0x{outcome.tx_hash.hex()} block {outcome.block_number}")


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _from_log(client: ChainClient, url: str) -> list[Published]:
    """The server's first page, and then whatever follows what the chain has."""
    found: list[Published] = []
    after, left = 0, _MOST_BYTES
    for _ in range(_MOST_PAGES):
        raw = _get(f"{url.rstrip('/')}/batches?after={after}", left)
        left -= len(raw)
        page = _entries(parse_json(raw))
        if not page:
            return found
        for signed, _ in page:
            if signed.message.sequence <= after:
                raise InvalidEncoding(
                    f"{url} gave batch {signed.message.sequence} where one after {after} was due"
                )
            after = signed.message.sequence
        if not found:
            after = max(after, client.log_state(page[0][0].message.log_id).sequence)
        found += page
    raise InvalidEncoding(f"{url} has more than {_MOST_PAGES} pages of batches to settle")


def _from_file(path: Path) -> list[Published]:
    if path.is_dir():
        return [entry for file in path.glob("*.json") for entry in _from_file(file)]
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"can't read {path} ({error.strerror}); name a batch's file") from error
    if not raw.lstrip().startswith(b"{"):
        return [(signed_from_bytes(Batch, raw), None)]
    return _entries(parse_json(raw))


def _entries(document: Any) -> list[Published]:
    """Any of the published forms."""
    if not isinstance(document, dict):
        raise InvalidEncoding("a published batch is a JSON object")
    if isinstance(document.get("batches"), list):
        return [entry for part in document["batches"] for entry in _entries(part)]
    if "batch" not in document:
        return [(signed_from_json(Batch, document), None)]
    if document.get("consistency") is None:
        return [(signed_from_json(Batch, document["batch"]), None)]
    copy = BatchCopy.from_json(document)
    return [(copy.signed, list(copy.consistency))]


def _tile(source: str, tile: Tile) -> bytes:
    """A tile of a copy; where only a fuller one is kept, its beginning."""
    if _is_url(source):
        return _get(f"{source.rstrip('/')}/{tile.path}")[: 32 * tile.width]
    whole = Path(source) / Tile(tile.level, tile.index).path
    fuller = [whole, *sorted(Path(f"{whole}.p").glob("*"), key=lambda part: part.name)]
    for path in fuller:
        if path.is_file() and path.stat().st_size >= 32 * tile.width:
            return path.read_bytes()[: 32 * tile.width]
    raise Misconfigured(f"{source} has no {tile.path}; get the tile from another copy of the log")


def _get(url: str, most: int = _MOST_BYTES) -> bytes:
    content = bytearray()
    try:
        with httpx.stream("GET", url, timeout=20) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                content += part
                if len(content) > most:
                    raise InvalidEncoding(f"{url} sends more than the {most} bytes it may")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TransportFailure(
            f"{url}: {error or type(error).__name__}; a file with the batch and --tiles of any"
            " copy of the log will do as well"
        ) from error
    return bytes(content)
