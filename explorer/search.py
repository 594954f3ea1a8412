"""What a text in the search box means: a request, a party, a transaction, a batch, a digest."""

import re
from typing import Final
from uuid import UUID

from explorer.formats import request_id
from explorer.reading import Reader
from pinaivu.encoding import to_hex
from pinaivu.keys import checksum
from pinaivu.store.explorer import BatchRow, LeafRow

Query = dict[str, str]
"""Query parameters of one page."""

_ADDRESS: Final = re.compile(r"(?:0x)?[0-9a-fA-F]{40}")
_DIGEST: Final = re.compile(r"(?:0x)?[0-9a-fA-F]{64}")
_SEQUENCE: Final = re.compile(r"(?:batch\s*)?#?\s*(\d{1,19})", re.IGNORECASE)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")


def find(text: str, reader: Reader) -> list[Query]:
    """The pages a text may mean, best first; empty where it means nothing known.

    A well-formed request id always has its page: that says what to do when it is unknown.
    """
    text = text.strip()
    if _UUID.fullmatch(text):
        return [{"request": str(UUID(text))}]
    if _ADDRESS.fullmatch(text):
        return _parties(_bytes(text), reader)
    if _DIGEST.fullmatch(text):
        return _digests(_bytes(text), reader)
    if match := _SEQUENCE.fullmatch(text):
        return [{"batch": str(int(match[1]))}]
    return []


def _parties(address: bytes, reader: Reader) -> list[Query]:
    full, found = checksum(address), list[Query]()
    registered = {event.name for event in reader.events(party=address)}
    if reader.running("node", address) or "NodeRegistered" in registered:
        found.append({"node": full})
    if reader.running("payer", address) or registered & {"Deposited", "Assigned"}:
        found.append({"payer": full})
    if reader.knows_gateway(address) or "GatewayRegistered" in registered:
        found.append({"gateway": full})
    return found


def _digests(digest: bytes, reader: Reader) -> list[Query]:
    if reader.transaction(digest):
        return [{"tx": to_hex(digest)}]
    row = reader.find_digest(digest)
    if isinstance(row, BatchRow):
        return [{"batch": str(row.sequence)}]
    if isinstance(row, LeafRow) and row.kind == "Receipt":
        receipt = reader.receipt(row.position)[0].message
        return [{"request": request_id(receipt.job_id), "gateway": checksum(receipt.gateway)}]
    return []


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
