"""`pinaivu standings`: what an auction knew of its nodes, computed again from receipts."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click
from msgspec import Struct

from pinaivu.bundles import unpack
from pinaivu.chain.deployment import Deployment
from pinaivu.checkpoints import parse_note
from pinaivu.cli.fetched import (
    REFUTED,
    book,
    fetch,
    judged,
    leaf_lines,
    log_of,
    public_bundle,
    request_id_of,
    root_beside,
)
from pinaivu.cli.place import network_options, open_folder
from pinaivu.encoding import parse_json, to_hex
from pinaivu.errors import InvalidEncoding
from pinaivu.keys import checksum
from pinaivu.merkle.hashing import root_of
from pinaivu.merkle.tiles import tiles_at
from pinaivu.messages import Checkpoint, EpochStart, Lost, Receipt
from pinaivu.reputation import Standing
from pinaivu.reputation.replay import Comparison, Line, StandingsDiffer, compare
from pinaivu.typed_data import Domain, Message, Signed, signed_from_json
from pinaivu.verify.contents import Contents, read_contents
from pinaivu.verify.findings import Lacks
from pinaivu.verify.rerun import rerun

Json = dict[str, Any]
_LEAVES: Final[dict[str, type[Message]]] = {
    "Receipt": Receipt,
    "EpochStart": EpochStart,
    "Lost": Lost,
}
_file = click.Path(dir_okay=False, exists=True, path_type=Path)


class Replayed(Struct, frozen=True):
    """An auction's standings beside those that the log's receipts give."""

    model: str
    receipts: int
    checkpoint: Checkpoint
    comparison: Comparison

    @property
    def agrees(self) -> bool:
        """Whether every row and M follow from the receipts."""
        return not self.comparison.different and self.comparison.output_after is not None

    def to_text(self) -> str:
        """A table for people, LF at each line's end."""
        found, checkpoint = self.comparison, self.checkpoint
        same = found.output_after is not None
        rows = [line for each in found.lines for line in _lines(each)]
        return "\n".join(
            [
                f"model     {self.model}",
                f"receipts  {self.receipts}, in a log of {checkpoint.size} leaves",
                f"root      {to_hex(checkpoint.root)}",
                f"known     the first {found.rows_after} of them when the auction opened",
                "",
                f"{'node':<42}  {'success':>9}  {'first token':>12}  {'per token':>12}  standing",
                *rows,
                "",
                f"expected output {found.expected_said} tokens: "
                + ("same" if same else f"DIFFERS, by the receipts {found.expected_due}"),
                f"{len(found.lines)} rows, {len(found.different)} of them differ",
                "",
            ]
        )

    def to_json(self) -> Json:
        """The same as a JSON value; success in ppm, calibrations in parts per thousand."""
        found = self.comparison
        return {
            "agrees": self.agrees,
            "model": self.model,
            "receipts": self.receipts,
            "receipts_known": found.rows_after,
            "size": self.checkpoint.size,
            "root": to_hex(self.checkpoint.root),
            "expected_output": {"said": found.expected_said, "due": found.expected_due},
            "nodes": [
                {
                    "node": to_hex(line.node),
                    "same": line.said == line.due,
                    "said": _standing_json(line.said),
                    "due": _standing_json(line.due),
                }
                for line in found.lines
            ],
        }


@click.command("standings")
@network_options
@click.argument("target", required=False)
@click.option("--log-url", help="The log's public server, instead of the network's.")
@click.option(
    "--receipts",
    "receipt_files",
    type=_file,
    multiple=True,
    help="The log's receipts as it serves them (/tile/receipts/…), in order, instead of asking it.",
)
@click.option("--book", "book_file", type=_file, help="The auction's book, as the log served it.")
@click.option("--json", "as_json", is_flag=True, help="The table as JSON.")
def command(
    network: Path,
    rpc: str | None,  # noqa: ARG001 - no chain is asked; the option is every command's
    deployment: Path | None,
    target: str | None,
    log_url: str | None,
    receipt_files: tuple[Path, ...],
    book_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Recompute what the auction of TARGET knew of each node, and compare.

    TARGET is a bundle file or a request id; without one, the log's newest request. Receipts must
    hash to the checkpoint in the bundle. Exit codes: 0 every row follows from them, 1 one does not
    or they are not the log's, 2 something is missing, 3 wrong usage.
    """
    domain = Deployment.load(deployment or open_folder(network).deployment).domain
    log = (log_url or log_of(network) if _asks(target, receipt_files, log_url) else "").rstrip("/")
    with judged():
        replayed = _replayed(_bundle(target, log), domain, log, receipt_files, book_file)
    shown = json.dumps(replayed.to_json(), indent=2) if as_json else replayed.to_text()
    click.echo(shown, nl=as_json)
    raise click.exceptions.Exit(0 if replayed.agrees else REFUTED)


def _asks(target: str | None, receipt_files: Sequence[Path], log_url: str | None) -> bool:
    """Whether a log is needed: not where bundle and receipts are files."""
    return bool(log_url) or not receipt_files or not (target and Path(target).exists())


def _bundle(target: str | None, log: str) -> bytes:
    if target and Path(target).exists():
        return Path(target).read_bytes()
    return public_bundle(log, request_id_of(target) if target else _newest(log))


def _newest(log: str) -> str:
    """The request id of the log's newest receipt with an auction."""
    size = parse_note(fetch(f"{log}/checkpoint").text).size
    for tile in reversed(list(tiles_at("receipts", size))):
        for line in reversed(fetch(f"{log}/{tile.path}").content.splitlines()):
            leaf = _leaf(line).message
            if isinstance(leaf, Receipt) and any(leaf.bids_root):
                return str(UUID(bytes=leaf.job_id))
    raise Lacks("there is no auction in the log yet")


def _replayed(
    raw: bytes, domain: Domain, log: str, receipt_files: Sequence[Path], book_file: Path | None
) -> Replayed:
    contents = read_contents(unpack(raw))
    size = contents.log.checkpoint.message.size
    lines = _lines_of(receipt_files) if receipt_files else leaf_lines(log, size)
    receipts = _receipts(contents, domain, list(islice(lines, size)))
    root, rows = root_beside(raw), None
    if book_file is not None:
        rows = parse_json(book_file.read_bytes())
    elif root is not None and log:
        rows = book(log, root)
    replay, _ = rerun(contents, domain, rows)
    if replay.root != contents.receipt.message.bids_root:
        raise StandingsDiffer("the transcript is not the one that the receipt names")
    parameters = next(p.parameters for p in contents.epochs if p.number == replay.header.epoch)
    model = contents.job.message.model
    comparison = compare(receipts, replay, model, parameters)
    return Replayed(model, len(receipts), contents.log.checkpoint.message, comparison)


def _receipts(contents: Contents, domain: Domain, lines: Sequence[bytes]) -> list[Receipt]:
    """The log's receipts, if the leaves hash to the bundle's checkpoint and hold its receipt."""
    checkpoint = contents.log.checkpoint
    for epoch in contents.epochs:
        if epoch.number == checkpoint.message.epoch:
            checkpoint.require(domain, epoch.signer)
    if len(lines) < checkpoint.message.size:
        raise Lacks(f"needs {checkpoint.message.size} leaves of the log, got {len(lines)}")
    leaves = [_leaf(line) for line in lines]
    digests = [leaf.digest(domain) for leaf in leaves]
    if root_of(digests) != checkpoint.message.root:
        raise StandingsDiffer("the receipts are not the log's: their root is not the checkpoint's")
    if digests[contents.log.index] != contents.receipt.digest(domain):
        raise StandingsDiffer("the bundle's receipt is not in the log where it says")
    return [leaf.message for leaf in leaves if isinstance(leaf.message, Receipt)]


def _leaf(line: bytes) -> Signed[Any]:
    said: Any = parse_json(line)
    kind = said.pop("type", None) if isinstance(said, dict) else None
    if kind not in _LEAVES:
        raise InvalidEncoding(f"a leaf of type {kind!r}")
    return signed_from_json(_LEAVES[kind], said)


def _lines_of(files: Sequence[Path]) -> Iterator[bytes]:
    for file in files:
        yield from file.read_bytes().splitlines()


def _lines(line: Line) -> list[str]:
    """A node's row; below it, where they give another, what the receipts give."""
    same = line.said == line.due
    rows = [_row(checksum(line.node), line.said, "same" if same else "DIFFERS")]
    return rows if same else [*rows, _row("  by the receipts", line.due, "")]


def _row(name: str, standing: Standing, verdict: str) -> str:
    new = ", newcomer" if standing.newcomer else ""
    return (
        f"{name:<42}  {standing.success_ppm / 10_000:7.4f} %  {standing.cal_t / 1000:10.3f} x  "
        f"{standing.cal_s / 1000:10.3f} x  {verdict}{new}"
    ).rstrip()


def _standing_json(standing: Standing) -> Json:
    return {name: getattr(standing, name) for name in Standing.__struct_fields__}
