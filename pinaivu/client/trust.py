"""What a client believes and what it demands of every answer.

    Trust(policy=answers(domain), chain=lambda: ContractFacts(client))       # a chain vouches
    Trust(policy=answers(domain, offline=True), signers=frozenset({key}))    # a pinned key does

A bundle always says itself which key signed it, so somebody else has to say that the key is the
log's: a chain (V1 and V2), or the holder, who pins it. Without either there is nothing to trust and
`Misconfigured` says so.
"""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from pinaivu.errors import Misconfigured
from pinaivu.typed_data import Domain
from pinaivu.verify.case import TokenCounter
from pinaivu.verify.facts import ChainFacts
from pinaivu.verify.policy import BUNDLE, Policy

_ANSWERED: Final = frozenset({BUNDLE, "V3", "V4", "V5", "V6", "V7", "V8"})
_BY_CHAIN: Final = frozenset({"V1", "V2"})


def answers(
    domain: Domain,
    *,
    offline: bool = False,
    simulated: bool = False,
    counted: bool = False,
    gateway: bytes | None = None,
    payer: bytes | None = None,
) -> Policy:
    """What can be asked of an answer within seconds: V1 to V8, offline V3 to V8.

    `simulated` accepts a SIMULATED attestation, for development networks. `counted` needs V9, and
    so a tokenizer. V10 to V12 take a settled batch: `pinaivu verify` checks them afterwards.
    """
    needs = _ANSWERED | (frozenset() if offline else _BY_CHAIN)
    return Policy(
        name="answers",
        domain=domain,
        needs=needs | ({"V9"} if counted else frozenset()),
        accepts_simulated=simulated,
        gateway=gateway,
        payer=payer,
    )


class Trust(Struct, frozen=True, kw_only=True):
    """A client's terms. Empty pins mean any that the policy's steps show to be right.

    `chain` makes a view of the chain as it is now; it is asked again when one has become old.
    `books` finds an auction's book by its root, where more than 256 nodes offered and it stands
    apart from the bundle (`pinaivu.client.books_at`); without it V7 can't be judged then.
    `signers` are epoch keys' addresses (20 bytes), `measurements` digests of code (32 bytes).
    `account_limit` is the limit that a hosted key's holder was promised, `max_cost_units` the most
    one answer may cost, `max_age_ms` how long before it was asked a job may have been made.
    """

    policy: Policy
    chain: Callable[[], ChainFacts] | None = None
    books: Callable[[bytes], object] | None = None
    signers: frozenset[bytes] = frozenset()
    measurements: frozenset[bytes] = frozenset()
    tokenizer: TokenCounter | None = None
    account_limit: int | None = None
    max_cost_units: int | None = None
    max_age_ms: int = 600_000

    def checked(self) -> "Trust":
        """These terms, if they can ever be met; `Misconfigured` says what is missing."""
        if self.chain is None and not self.signers:
            raise Misconfigured(
                "nothing says which key is the log's: name a chain, or pin the epoch's signer"
            )
        if self.chain is None and self.policy.needs & _BY_CHAIN:
            raise Misconfigured("V1 and V2 take a chain: name one, or use answers(offline=True)")
        if "V9" in self.policy.needs and self.tokenizer is None:
            raise Misconfigured("V9 takes the model's tokenizer: give one, or don't ask for V9")
        return self
