"""The auction of a bundle, read and ready to be cleared again.

A large book stands apart from its transcript and is handed in beside the bundle. One that does not
belong to it proves nothing against it: whoever served it may have erred, so it is only not the book
that is needed. Rows inside the bundle are the bundle's own word, and contradict it if they differ.
"""

from collections.abc import Mapping
from typing import Any

from pinaivu.auction.replay import Book, BookFault, Replay, read_book, read_transcript
from pinaivu.auction.rule import Market
from pinaivu.auction.transcript import Header
from pinaivu.encoding import from_hex, to_hex
from pinaivu.errors import InvalidEncoding
from pinaivu.typed_data import Domain
from pinaivu.verify.contents import Contents
from pinaivu.verify.findings import Lacks


def book_beside(transcript: Mapping[str, Any] | None) -> bytes | None:
    """The root of the book that a transcript leaves out; None where it holds its rows."""
    if transcript is None or "rows" in transcript:
        return None
    return Header.from_bytes(from_hex(transcript.get("header"))).book_root


def rerun(contents: Contents, domain: Domain, book: object = None) -> tuple[Replay, Market]:
    """Read a bundle's transcript, with the book served apart (``{"rows": […]}``) where it needs it.

    `Lacks` names what is missing; `TranscriptFault` or `InvalidEncoding` what does not hold.
    """
    transcript = contents.transcript
    if transcript is None:
        raise Lacks("needs the auction's transcript (/transcripts/{id} of the log)")
    header = Header.from_bytes(from_hex(transcript.get("header")))
    parameters = {part.number: part.parameters for part in reversed(contents.epochs)}
    if header.epoch not in parameters:
        raise Lacks(f"needs the parameters of epoch {header.epoch}, which held the auction")
    return read_transcript(
        transcript,
        domain,
        contents.job.message,
        contents.grant.message,
        parameters[header.epoch],
        _book(header, domain, book) if book_beside(transcript) else None,
    )


def _book(header: Header, domain: Domain, given: object) -> Book:
    needed = f"needs the book's rows (/books/{to_hex(header.book_root)} of the log)"
    if given is None:
        raise Lacks(needed)
    if not isinstance(given, dict) or given.keys() != {"rows"}:
        raise Lacks(f"{needed}; what was given is no book")
    try:
        return read_book(given["rows"], header, domain)
    except (BookFault, InvalidEncoding) as error:
        raise Lacks(f"{needed}; what was given is another one: {error}") from error
