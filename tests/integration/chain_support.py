"""What the chain tests share: a funded sender, and hand-assembled contracts that do one thing."""

import os
import time
from collections.abc import Callable

from pinaivu.chain.anvil import CHAIN_ID, fund
from pinaivu.chain.calls import Call
from pinaivu.chain.rpc import JsonRpc
from pinaivu.chain.transactor import Pace, Transactor
from pinaivu.keys import SecretKey

REVERT_WITH_CALLDATA = bytes.fromhex("365f5f37365ffd")
SUCCEED_ONCE = bytes.fromhex("5f541560095 75f5ffd5b60015f5500".replace(" ", ""))
LOOP_FOREVER = bytes.fromhex("5b5f56")
LOG_CALLDATA = bytes.fromhex("365f5f376020355f356040360360 40a200".replace(" ", ""))
"""Emits an event: topics are the first two words of the call data, data the rest."""

QUICK = Pace(poll_s=0.01, resend_s=0.05, bump_s=0.1)


def funded_transactor(rpc: JsonRpc, key: SecretKey | None = None) -> Transactor:
    """A transactor with a fresh key and coin for gas, impatient enough for tests."""
    key = key or SecretKey.generate(os.urandom)
    fund(rpc, key.address)
    return Transactor(rpc, CHAIN_ID, key, pace=QUICK)


def deploy_code(sender: Transactor, runtime: bytes) -> bytes:
    """The address of a new contract with exactly this code."""
    # PUSH1 length, DUP1, PUSH1 offset, PUSH0, CODECOPY, PUSH0, RETURN
    creation = bytes((0x60, len(runtime), 0x80, 0x60, 0x09, 0x5F, 0x39, 0x5F, 0xF3)) + runtime
    contract = sender.send(Call("create", b"", creation)).contract
    assert contract is not None
    return contract


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for a condition; an `AssertionError` when it doesn't come true."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "condition not reached"
        time.sleep(0.02)
