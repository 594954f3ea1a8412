"""Sends a command's transaction, and says what a contract's refusal means to whoever typed it."""

from collections.abc import Mapping
from typing import Final

import click

from pinaivu.chain.calls import Call
from pinaivu.chain.client import ChainClient
from pinaivu.chain.errors import Reverted
from pinaivu.chain.transactor import Transactor, TxOutcome
from pinaivu.chain.views import simulate
from pinaivu.errors import PeerFault
from pinaivu.keys import SecretKey

_MEANINGS: Final = {
    # Bonds
    "NodeNotRegistered": "only a registered node is bonded; run `pinaivu node register` first",
    "NotAllowedToFund": "the node or its payout wallet must allow this funder first: `pinaivu node"
    " bond allow`",
    "NotNodeOrPayout": "use the key of the node or of its payout wallet",
    "NotFunder": "another account funds this bond (zero: there is no bond); `pinaivu node bond"
    " show` says who",
    "UnbondingPending": "the bond is on its way back; `pinaivu node bond cancel-withdrawal` first",
    "NothingRequested": "nothing was asked for; `pinaivu node bond request-withdrawal` first",
    "TooEarly": "the delay is not over; `pinaivu node bond show` says when it is",
    "ERC20InsufficientBalance": "the funder's wallet does not hold that many tokens",
    # Faults
    "SameCompletion": "both files hold the same completion; sending it twice is no fault",
    "DifferentAwards": "the completions are for two awards; a node makes one for each",
    "DifferentNodes": "the completions are of two nodes",
    "DifferentLogs": "the checkpoints are of two logs",
    "DifferentSizes": "the checkpoints are of two sizes of the log; only one size with two roots is"
    " a fault",
    "SameRoot": "the checkpoints agree; signing the same root again is no fault",
    "RightTotal": "the receipt adds up",
    "WrongSigner": "the signature is not of the key that should have signed, or was made for"
    " another chain or deployment",
    "UnknownEpoch": "the log never had this epoch; is this the right chain and deployment?",
    "ECDSAInvalidSignature": "the signature is damaged",
    "ECDSAInvalidSignatureS": "the signature is not in the one form that is accepted (s too large)",
    "AlreadyReported": "somebody has reported this fault already",
}


def send(
    client: ChainClient, key: SecretKey, call: Call, meanings: Mapping[str, str] | None = None
) -> TxOutcome:
    """Send a call and print its transaction; `PeerFault` says what a refusal means.

    `meanings` are those of the command's own subject, by the name of the contract's error.
    """
    try:
        outcome = Transactor(client.rpc, client.deployment.chain_id, key).send(call)
    except Reverted as reverted:
        raise _explained(reverted, meanings) from reverted
    click.echo(f"{call.what}: transaction 0x{outcome.tx_hash.hex()} block {outcome.block_number}")
    return outcome


def require_accepted(client: ChainClient, call: Call) -> None:
    """Ask the contract without sending anything; `PeerFault` says what a refusal means."""
    try:
        simulate(client.rpc, call)
    except Reverted as reverted:
        raise _explained(reverted) from reverted


def _explained(reverted: Reverted, meanings: Mapping[str, str] | None = None) -> PeerFault:
    meaning = (meanings or {}).get(reverted.name) or _MEANINGS.get(reverted.name)
    return PeerFault(f"{meaning} ({reverted})" if meaning else str(reverted))
