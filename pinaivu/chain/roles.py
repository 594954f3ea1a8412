"""The role table: who may call what, announced how long before.

`roles.json` beside this module is the one list. The deployer and the Ignition module set what it
says, `pinaivu roles` compares a chain with it. A function that is restricted but not listed stays
with the admin role, which is AccessManager's default.

Two delays add up. `Role.delay` is AccessManager's: a call is scheduled in public, and whoever
holds `vetoed_by` may cancel it until then. `Power.built_in` stands in the contract's code, where
no administrator reaches it. On local chains AccessManager's is none, so that networks start.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Annotated, Final

import msgspec

from pinaivu.chain.abi import load
from pinaivu.chain.deployment import CONTRACTS
from pinaivu.chain.records import Times
from pinaivu.errors import Misconfigured

ADMIN_ROLE: Final = 0
LOCAL_CHAINS: Final = frozenset({31_337, 1_337})
"""Chain ids on which play money and the attestation simulator may stand."""


class Delay(StrEnum):
    """A delay by the name of the deployment's duration that it is."""

    NONE = "none"
    WITHDRAWAL = "withdrawalDelay"
    ADMIN = "adminDelay"

    def ms(self, times: Times) -> int:
        """Its length in a deployment with these durations."""
        lengths = {
            Delay.NONE: 0,
            Delay.WITHDRAWAL: times.withdrawal_delay_ms,
            Delay.ADMIN: times.admin_delay_ms,
        }
        return lengths[self]


TARGETS: Final = CONTRACTS | {"attestation_verifier": "QuorumAttestationVerifier"}
"""Contracts with restricted functions, by the table's names: `Deployment`'s fields, and the
verifier that the enclave registry names."""


class Power(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One restricted function. `contract` is one of `TARGETS`."""

    contract: str
    name: str
    built_in: Delay
    meaning: str

    @property
    def selector(self) -> bytes:
        """The function's selector, from the packaged ABI."""
        return load(TARGETS[self.contract]).function(self.name).selector


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One role; `vetoed_by` names the role whose members may cancel its scheduled calls."""

    id: Annotated[int, msgspec.Meta(ge=0)]
    name: str
    delay: Delay
    vetoed_by: str | None
    meaning: str
    functions: tuple[Power, ...]

    def delay_ms(self, times: Times, chain_id: int) -> int:
        """AccessManager's delay of this role's members on that chain."""
        return 0 if chain_id in LOCAL_CHAINS else self.delay.ms(times)


@dataclass(frozen=True, slots=True)
class Target:
    """A contract of the table at its address, with its restricted functions."""

    name: str
    address: bytes
    powers: tuple[Power, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    roles: tuple[Role, ...]


@cache
def roles() -> tuple[Role, ...]:
    """Every role, by rising id."""
    source = files("pinaivu.chain") / "roles.json"
    try:
        return msgspec.json.decode(source.read_bytes(), type=_File).roles
    except (OSError, msgspec.DecodeError) as error:
        raise Misconfigured(f"the packaged role table is damaged: {error}; reinstall") from error


def role(name: str) -> Role:
    """A role by name."""
    for entry in roles():
        if entry.name == name:
            return entry
    raise Misconfigured(f"there is no role {name!r} in roles.json")
