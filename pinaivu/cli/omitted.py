"""`pinaivu omitted`: offers that one auction's book held and a later one lacked while firm."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from pinaivu.auction.omitted import left_out, related, require_withdrawal
from pinaivu.auction.replay import Replay, TranscriptFault
from pinaivu.bundles import unpack
from pinaivu.chain.deployment import Deployment
from pinaivu.cli.fetched import (
    REFUTED,
    book,
    judged,
    log_of,
    public_bundle,
    request_id_of,
    root_beside,
)
from pinaivu.cli.place import network_options, open_folder
from pinaivu.encoding import parse_json, to_hex
from pinaivu.keys import BadSignature, checksum
from pinaivu.messages import Offer
from pinaivu.typed_data import Domain, Signed, signed_from_json
from pinaivu.verify.contents import Contents, read_contents
from pinaivu.verify.findings import Lacks
from pinaivu.verify.rerun import rerun

Json = dict[str, Any]
_file = click.Path(dir_okay=False, exists=True, path_type=Path)


class Missing(Struct, frozen=True):
    """An offer that the later book lacks, and the withdrawal that explains it, if one does."""

    offer: Offer
    withdrawal: Offer | None


class Compared(Struct, frozen=True):
    """Two books of one log, epoch and model."""

    earlier: Replay
    later: Replay
    missing: list[Missing]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing, but for what its node withdrew."""
        return all(entry.withdrawal for entry in self.missing)

    def to_text(self) -> str:
        """Lines for people, LF at each one's end."""
        unexplained = sum(entry.withdrawal is None for entry in self.missing)
        return "\n".join(
            [
                f"earlier   {len(self.earlier.entrants)} offers, open {_times(self.earlier)}",
                f"later     {len(self.later.entrants)} offers, open {_times(self.later)}",
                *(_line(entry) for entry in self.missing),
                f"{unexplained} of the earlier offers, still firm, left out and not withdrawn",
                "",
            ]
        )

    def to_json(self) -> Json:
        """The same as a JSON value."""
        return {
            "whole": self.whole,
            "earlier": {"root": to_hex(self.earlier.root), "offers": len(self.earlier.entrants)},
            "later": {"root": to_hex(self.later.root), "offers": len(self.later.entrants)},
            "missing": [
                {
                    "node": to_hex(entry.offer.node),
                    "sequence": entry.offer.sequence,
                    "expires_ms": entry.offer.expires_ms,
                    "withdrawn": entry.withdrawal is not None,
                }
                for entry in self.missing
            ],
        }


@click.command("omitted")
@network_options
@click.argument("earlier")
@click.argument("later")
@click.option("--log-url", help="The log's public server, instead of the network's.")
@click.option(
    "--book",
    "book_files",
    type=_file,
    multiple=True,
    help="A large auction's book, as the log served it, instead of asking the log; one for each.",
)
@click.option(
    "--withdrawal",
    "withdrawal_files",
    type=_file,
    multiple=True,
    help="An offer that a node signed later, as JSON: what excuses that a book lacks it.",
)
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def command(
    network: Path,
    rpc: str | None,  # noqa: ARG001 - no chain is asked; the option is every command's
    deployment: Path | None,
    earlier: str,
    later: str,
    log_url: str | None,
    book_files: tuple[Path, ...],
    withdrawal_files: tuple[Path, ...],
    *,
    as_json: bool,
) -> None:
    """Show the offers of the auction of EARLIER that the one of LATER should have held, and lacks.

    Both are bundle files or request ids, of one log, epoch and model. Exit codes: 0 nothing is
    missing, or the node withdrew it; 1 an offer is missing, or a bundle contradicts itself; 2
    something is lacking, or the two say nothing about each other; 3 wrong usage.
    """
    domain = Deployment.load(deployment or open_folder(network).deployment).domain
    books = [parse_json(path.read_bytes()) for path in book_files]

    def replayed(target: str) -> tuple[Contents, Replay]:
        is_file = Path(target).exists()
        log = "" if is_file and not log_url else (log_url or log_of(network)).rstrip("/")
        raw = Path(target).read_bytes() if is_file else public_bundle(log, request_id_of(target))
        return _replayed(raw, domain, log, books)

    with judged():
        words = [signed_from_json(Offer, parse_json(f.read_bytes())) for f in withdrawal_files]
        compared = _compare(replayed(earlier), replayed(later), words, domain)
    shown = json.dumps(compared.to_json(), indent=2) if as_json else compared.to_text()
    click.echo(shown, nl=as_json)
    raise click.exceptions.Exit(0 if compared.whole else REFUTED)


def _replayed(
    raw: bytes, domain: Domain, log: str, books: Sequence[object]
) -> tuple[Contents, Replay]:
    """A bundle and its auction, which its signed receipt names."""
    contents, root = read_contents(unpack(raw)), root_beside(raw)
    receipt = contents.receipt
    receipt.require(domain, _signer(contents, receipt.message.epoch))
    replay = _rerun(contents, domain, books, log if root else "", root)
    if replay.root != receipt.message.bids_root:
        raise TranscriptFault("the transcript is not the one that the receipt names")
    return contents, replay


def _rerun(
    contents: Contents, domain: Domain, books: Sequence[object], log: str, root: bytes | None
) -> Replay:
    for given in books if root else ():
        try:
            return rerun(contents, domain, given)[0]
        except Lacks:  # the other auction's, perhaps
            continue
    return rerun(contents, domain, book(log, root) if log and root else None)[0]


def _signer(contents: Contents, epoch: int) -> bytes:
    for part in contents.epochs:
        if part.number == epoch:
            return part.signer
    raise Lacks(f"needs the manifest of epoch {epoch}")


def _compare(
    earlier: tuple[Contents, Replay],
    later: tuple[Contents, Replay],
    words: Sequence[Signed[Offer]],
    domain: Domain,
) -> Compared:
    before, after = earlier[1], later[1]
    signers = {_signer(contents, replay.header.epoch) for contents, replay in (earlier, later)}
    if not related(before, after) or len(signers) != 1:
        raise Lacks("the two are not of one log, epoch and model, the earlier auction first")
    missing = [
        Missing(offer, _excuse(offer, after, words, domain)) for offer in left_out(before, after)
    ]
    return Compared(before, after, missing)


def _excuse(
    offer: Offer, later: Replay, words: Sequence[Signed[Offer]], domain: Domain
) -> Offer | None:
    """The node's own later word, where one of those given explains that its offer is gone."""
    for word in words:
        try:
            require_withdrawal(word, offer, later, domain)
        except (BadSignature, TranscriptFault):
            continue
        return word.message
    return None


def _times(replay: Replay) -> str:
    return f"from {replay.header.open_ms} to {replay.header.close_ms} ms"


def _line(entry: Missing) -> str:
    offer = entry.offer
    said = f"withdrawn by {entry.withdrawal.sequence}" if entry.withdrawal else "LEFT OUT"
    return (
        f"{checksum(offer.node)}  offer {offer.sequence}, firm until {offer.expires_ms} ms  {said}"
    )
