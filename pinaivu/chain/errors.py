"""What can go wrong between us and a chain.

PeerFault
└── Reverted              a contract refused the call; names its custom error and arguments
TransportFailure
├── ChainUnavailable      no usable answer from the RPC endpoint
│   └── RpcRefused        the endpoint answered with a JSON-RPC error
├── TransactionPending    sent, but not mined by the deadline; it may still be
└── AnvilDied             the local development chain ended or never became ready
Misconfigured
├── WrongChain            the endpoint serves another chain
├── NotDeployed           no code where the deployment says a contract is
├── CallTooLarge          one transaction can't hold the call
├── NoGasMoney            the sending account can't pay for gas
└── AnvilUnusable         no anvil binary, or its port is taken

Errors of libraries never leave this package; they are the cause of one of these.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pinaivu.errors import Misconfigured, PeerFault, TransportFailure

if TYPE_CHECKING:
    from pinaivu.chain.transactor import Pending


class Reverted(PeerFault):
    """A contract refused the call: `name` is its custom error, `arguments` that error's values.

    `name` is empty where the contract gave no reason, `Error` for a plain text and `Panic` for a
    compiler check. `tx_hash` is set when the refusal was mined, and gas was spent on it.
    """

    def __init__(
        self,
        what: str,
        name: str = "",
        arguments: Mapping[str, object] | None = None,
        *,
        data: bytes = b"",
        tx_hash: bytes | None = None,
    ) -> None:
        self.what = what
        self.name = name
        self.arguments = dict(arguments or {})
        self.data = data
        self.tx_hash = tx_hash
        shown = ", ".join(f"{key}={_shown(value)}" for key, value in self.arguments.items())
        reason = f"{name}({shown})" if name else "no reason given"
        super().__init__(f"{what} reverted: {reason}")


class ChainUnavailable(TransportFailure):
    """The RPC endpoint gave no usable answer; nothing is known about what the call did."""


class RpcRefused(ChainUnavailable):
    """The endpoint answered with a JSON-RPC error object."""

    def __init__(self, method: str, code: int, message: str, data: object = None) -> None:
        self.method = method
        self.code = code
        self.message = message
        self.data = data
        super().__init__(f"{method}: {message} (JSON-RPC error {code})")


class TransactionPending(TransportFailure):
    """Sent but not mined by the deadline. `pending` can be waited for again; never send anew."""

    def __init__(self, pending: "Pending") -> None:
        self.pending = pending
        super().__init__(
            f"{pending.call.what} (nonce {pending.nonce}, transaction 0x{pending.hashes[-1].hex()})"
            " is not mined yet; wait for it again"
        )


class NonceTaken(TransportFailure):
    """Another transaction of the same key was mined under this nonce; the call was not run."""

    def __init__(self, what: str, nonce: int) -> None:
        super().__init__(
            f"{what} was not carried out: another sender of this key used its nonce {nonce};"
            " send it anew, and use a key in one process only"
        )


class AnvilDied(TransportFailure):
    """The local development chain ended or never answered; the message holds its last output."""


class WrongChain(Misconfigured):
    """The endpoint serves another chain than the one configured."""

    def __init__(self, endpoint: str, expected: int, found: int) -> None:
        self.expected = expected
        self.found = found
        super().__init__(
            f"{endpoint} serves chain {found}, but this installation is set up for chain"
            f" {expected}; change the RPC URL or the deployment"
        )


class NotDeployed(Misconfigured):
    """There is no code at an address that the deployment names."""

    def __init__(self, contract: str, address: bytes, chain_id: int) -> None:
        super().__init__(
            f"no contract {contract} at 0x{address.hex()} on chain {chain_id}; the deployment file"
            " belongs to another chain or the chain was reset: deploy again"
        )


class CallTooLarge(Misconfigured):
    """One transaction can't hold the call; make it smaller (fewer rows per batch)."""


class NoGasMoney(Misconfigured):
    """The sending account can't pay for gas; send native coin to it."""


class AnvilUnusable(Misconfigured):
    """Anvil can't be started as asked; the message says what to change."""


def _shown(value: object) -> str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else repr(value)
