"""A deployment: which contracts, where, on which chain, and since which block.

Kept as a small JSON file that is read strictly and written atomically. Holding one proves nothing;
`ChainClient.check` compares it with a chain.
"""

from pathlib import Path
from typing import Annotated, Final, Self

import msgspec

from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.keys import ADDRESS_BYTES, ZERO_ADDRESS
from pinaivu.typed_data import Domain

CONTRACTS: Final = {
    "settlement": "Settlement",
    "receipt_log": "ReceiptLog",
    "enclave_registry": "EnclaveRegistry",
    "node_registry": "NodeRegistry",
    "objective_faults": "ObjectiveFaults",
    "gateway_registry": "GatewayRegistry",
    "model_registry": "ModelRegistry",
}
"""Deployment field → name of the packaged ABI."""

_Hex = Annotated[str, msgspec.Meta(pattern="^0x[0-9a-f]{40}$")]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    chain_id: Annotated[int, msgspec.Meta(ge=1)]
    block: Annotated[int, msgspec.Meta(ge=0)]
    token: _Hex
    access_manager: _Hex
    settlement: _Hex
    receipt_log: _Hex
    enclave_registry: _Hex
    node_registry: _Hex
    objective_faults: _Hex
    gateway_registry: _Hex
    model_registry: _Hex


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses (20 bytes) of one deployment; `block` is where its events begin."""

    chain_id: int
    block: int
    token: bytes
    access_manager: bytes
    settlement: bytes
    receipt_log: bytes
    enclave_registry: bytes
    node_registry: bytes
    objective_faults: bytes
    gateway_registry: bytes
    model_registry: bytes

    def __post_init__(self) -> None:
        for name, address in self.addresses().items():
            if len(address) != ADDRESS_BYTES or address == ZERO_ADDRESS:
                raise InvalidEncoding(f"{name} of a deployment is no contract's address")

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain of everything signed for this deployment."""
        return Domain(self.chain_id, self.settlement)

    def addresses(self) -> dict[str, bytes]:
        """Field name → address, of every contract."""
        return {n: v for n, v in msgspec.structs.asdict(self).items() if isinstance(v, bytes)}

    def to_json(self) -> bytes:
        """The file's content."""
        shown = {name: "0x" + address.hex() for name, address in self.addresses().items()}
        document = _File(version=1, chain_id=self.chain_id, block=self.block, **shown)
        return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read `to_json`'s output; `InvalidEncoding` for anything else."""
        try:
            document = msgspec.json.decode(raw, type=_File)
        except msgspec.DecodeError as error:
            raise InvalidEncoding(f"no deployment: {error}") from error
        addresses = {
            name: bytes.fromhex(value[2:])
            for name, value in msgspec.structs.asdict(document).items()
            if isinstance(value, str)
        }
        return cls(chain_id=document.chain_id, block=document.block, **addresses)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file; `Misconfigured` where it is missing or damaged."""
        try:
            return cls.from_json(path.read_bytes())
        except OSError as error:
            raise Misconfigured(
                f"can't read the deployment {path} ({error.strerror}); deploy first, or give the"
                " path of a deployment file"
            ) from error
        except InvalidEncoding as error:
            raise Misconfigured(f"{path} is {error}; restore it or deploy again") from error

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(self.to_json())
        part.replace(path)
