"""`audit(network)`: fetch all that an outsider can get of a network's logs, and re-prove it.

Leaves come from the log's tiles under its newest checkpoint, bundles and batches from its public
server, the rest from the chain. Nothing is read from the network's databases. The proving is
`pinaivu.verify.audit`'s; here is only the fetching, and that the tiles are the tree.
"""

import json
import warnings
from base64 import b64decode
from typing import Any, Final
from uuid import UUID

import httpx

from pinaivu.attestation.simulated import SimulatedDocumentWarning
from pinaivu.chain.facts import ContractFacts
from pinaivu.checkpoints import parse_note
from pinaivu.encoding import to_hex
from pinaivu.local.folder import NODES
from pinaivu.local.logs import LocalLog
from pinaivu.local.network import Network
from pinaivu.manifest import Manifest, Parameters
from pinaivu.merkle.hashing import leaf_hash
from pinaivu.merkle.tiles import Tile, read_entry_bundle, read_hash_tile, tiles_at
from pinaivu.merkle.tree import Tree
from pinaivu.messages import Batch, EpochStart, Lost, Receipt
from pinaivu.typed_data import Message, Signed, signed_from_json
from pinaivu.verify import audit as proving
from pinaivu.verify.contents import EpochPart
from pinaivu.verify.policy import development

_LEAVES: Final[dict[str, type[Message]]] = {
    "Receipt": Receipt,
    "EpochStart": EpochStart,
    "Lost": Lost,
}
_HASHES_PER_TILE: Final = 8  # levels of the tree between two levels of tiles


def audit(network: Network) -> None:
    """Re-prove the network's whole state; `AuditFailed` names the first contradiction.

    Each log for itself, and that the chain credited nothing beside them.
    """
    before = _credited_on_chain(network)
    credited = sum(audit_log(network, log).credited for log in network.logs)
    assert before <= credited <= _credited_on_chain(network)  # batches settle meanwhile


def _credited_on_chain(network: Network) -> int:
    nodes = [network.folder.key(name).address for name in NODES]
    return sum(credit.lifetime for credit in network.chain.client.node_credits(nodes))


def audit_log(network: Network, log: LocalLog) -> proving.Audited:
    """Re-prove one log.

    The chain is looked at first: what it has settled by then is all published.
    """
    client = network.chain.client
    chain = ContractFacts(client)
    with httpx.Client(base_url=log.url, timeout=30) as http:
        public = PublicLog(http)
        note = public.text("/checkpoint")
        size = parse_note(note).size
        leaves = public.leaves(size)
        domain = client.deployment.domain
        public.require_tiles(size, [leaf.digest(domain) for leaf in leaves])
        state = proving.State(
            log_id=log.log_id,
            leaves=leaves,
            notes=[note],
            batches=[batch for batch in public.batches() if batch.message.new_size <= size],
            epochs=public.epochs(),
            bundles={
                leaf.digest(domain): public.bundle(leaf.message)
                for leaf in leaves
                if isinstance(leaf.message, Receipt)
            },
            chain=chain,
            sole_log=False,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimulatedDocumentWarning)  # `simulated` says it
        return proving.audit(development(domain).without_copies(), state)


class PublicLog:
    """The log's public server, as any client sees it."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def _get(self, path: str) -> httpx.Response:
        answer = self._http.get(path)
        assert answer.status_code == httpx.codes.OK, f"{path}: {answer.status_code} {answer.text}"
        return answer

    def text(self, path: str) -> str:
        """A text resource."""
        return self._get(path).text

    def size(self) -> int:
        """How many leaves the newest checkpoint covers."""
        return parse_note(self.text("/checkpoint")).size

    def leaves(self, size: int) -> list[Any]:
        """Every signed leaf, from the receipt bundles, in order."""
        lines = [
            json.loads(line)
            for tile in tiles_at("receipts", size)
            for line in self._get(f"/{tile.path}").text.splitlines()
        ]
        assert len(lines) == size
        return [_leaf(line) for line in lines]

    def require_tiles(self, size: int, digests: list[bytes]) -> None:
        """Entry bundles and hash tiles say the same as the leaves."""
        entries = [
            entry
            for tile in tiles_at("entries", size)
            for entry in read_entry_bundle(self._get(f"/{tile.path}").content, tile.width)
        ]
        assert entries == digests
        tree = Tree(leaf_hash(digest) for digest in digests)
        level = 0
        while size >> (_HASHES_PER_TILE * level):
            self._require_hash_tiles(tree, level, size)
            level += 1

    def _require_hash_tiles(self, tree: Tree, level: int, size: int) -> None:
        for tile in tiles_at(level, size):
            found = read_hash_tile(self._get(f"/{tile.path}").content, tile.width)
            height = _HASHES_PER_TILE * level
            assert found == tree.hashes(height, tile.start, tile.stop), _named(tile)

    def batches(self) -> list[Signed[Batch]]:
        """Every signed batch in order of sequence."""
        found: list[Signed[Batch]] = []
        while True:
            after = found[-1].message.sequence if found else 0
            page = self._get(f"/batches?after={after}").json()["batches"]
            if not page:
                return found
            found.extend(signed_from_json(Batch, entry["batch"]) for entry in page)

    def epochs(self) -> dict[int, EpochPart]:
        """What each epoch of the log was started with."""
        return {
            entry["number"]: EpochPart(
                number=entry["number"],
                manifest=Manifest.from_json(entry["manifest"]),
                parameters=Parameters.from_json(entry["parameters"]),
                document=b64decode(entry["document"], validate=True),
                verdicts=(),
            )
            for entry in self._get("/attestation").json()["epochs"]
        }

    def bundle(self, receipt: Receipt) -> bytes:
        """The public bundle of one receipt."""
        request_id = UUID(bytes=receipt.job_id)
        return self._get(f"/bundles/{to_hex(receipt.gateway)}/{request_id}").content


def _leaf(line: dict[str, Any]) -> Signed[Any]:
    kind = line.pop("type")
    return signed_from_json(_LEAVES[kind], line)


def _named(tile: Tile) -> str:
    return f"{tile.path} is not the tree's"
