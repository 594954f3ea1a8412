"""What a check of a deployment reads from, and where it puts what it finds. It judges nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from pinaivu.chain.deployment import Deployment
from pinaivu.chain.errors import ChainUnavailable
from pinaivu.chain.rpc import JsonRpc
from pinaivu.chain.views import read, view
from pinaivu.chain.words import from_hex, quantity, to_hex

_SECOND: Final = 1000


@dataclass
class RoleState:
    """Reads of `deployment` at `block`, and findings as sentences.

    `wrong` is not as meant, `unchecked` couldn't be seen, `notes` are to be known. `words` holds
    the immutables of every contract whose code is ours. `local`: play money and a simulator may be.
    """

    rpc: JsonRpc
    deployment: Deployment
    block: int
    local: bool = field(kw_only=True)
    wrong: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    words: dict[str, Mapping[str, bytes]] = field(default_factory=dict)

    @cached_property
    def now_ms(self) -> int:
        """The block's time."""
        raw = self.rpc.call("eth_getBlockByNumber", hex(self.block), False)
        if not raw:
            raise ChainUnavailable(f"{self.rpc.endpoint} has no block {self.block}")
        return quantity(raw["timestamp"]) * _SECOND

    def code(self, address: bytes) -> bytes:
        """The code at an address."""
        return from_hex(self.rpc.call("eth_getCode", to_hex(address), hex(self.block)))

    def ask(self, abi: str, address: bytes, function: str, *arguments: object) -> Any:
        """Return values of a view."""
        return read(self.rpc, view(abi, address, function, *arguments), self.block)

    def duration_ms(self, contract: str, immutable: str) -> int | None:
        """A duration in a contract's code; None where that isn't ours."""
        words = self.words.get(contract)
        return None if words is None else int.from_bytes(words[immutable]) * _SECOND

    def only_locally(self, what: str) -> None:
        """Something that is right on a local chain and wrong on others."""
        (self.notes if self.local else self.wrong).append(what)
