"""What a verification is measured against: chosen by whoever verifies, never by the bundle.

`strict` believes AWS Nitro alone and needs every step but V13, which has no answer yet. Its V14 is
never met in this version, so `strict` ends *incomplete* at best. `development` is for networks on
one machine: it accepts a SIMULATED attestation, says so, and needs V1 to V12.

    >>> strict(Domain(8453, settlement)).needs  # doctest: +SKIP
    frozenset({'V1', …, 'V12', 'V14'})
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from pinaivu.typed_data import Domain

BUNDLE: Final = "bundle"
"""Id of the step before V1: the file is a bundle of the policy's chain."""

STEPS: Final = tuple(f"V{number}" for number in range(1, 15))
_HOLDERS: Final = frozenset({"V4", "V5", "V9"})


class Policy(Struct, frozen=True, kw_only=True):
    """One verifier's terms. `needs` are the steps without which nothing counts as proven.

    `gateway` and `payer`, where set, are the only ones a receipt may name (20 bytes each).
    """

    name: str
    domain: Domain
    needs: frozenset[str]
    accepts_simulated: bool = False
    gateway: bytes | None = None
    payer: bytes | None = None

    def without_copies(self) -> "Policy":
        """The same terms for somebody who holds no copy: V4, V5 and V9 are not asked for.

        They are still run and reported; the policy's name says that they don't count.
        """
        name = f"{self.name}, without the holder's steps"
        return replace(self, name=name, needs=self.needs - _HOLDERS)


def strict(domain: Domain, *, gateway: bytes | None = None, payer: bytes | None = None) -> Policy:
    """Terms for real money: everything that can be asked for is."""
    needs = frozenset(STEPS) - {"V13"}
    return Policy(
        name="strict", domain=domain, needs=needs | {BUNDLE}, gateway=gateway, payer=payer
    )


def development(
    domain: Domain, *, gateway: bytes | None = None, payer: bytes | None = None
) -> Policy:
    """Terms for a network on one machine. What they prove rests on a SIMULATED attestation."""
    needs = frozenset(STEPS) - {"V13", "V14"}
    return Policy(
        name="development",
        domain=domain,
        needs=needs | {BUNDLE},
        accepts_simulated=True,
        gateway=gateway,
        payer=payer,
    )
