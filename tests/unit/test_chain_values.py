"""Deployments, anchors, transactions and ABI values without a chain."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import msgspec
import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

import pinaivu
from pinaivu.chain.abi import ContractAbi
from pinaivu.chain.deployment import CONTRACTS, Deployment
from pinaivu.chain.errors import ChainUnavailable
from pinaivu.chain.fees import FeePolicy, Fees
from pinaivu.chain.records import Anchor, PayerState
from pinaivu.chain.transactions import DynamicFeeTransaction
from pinaivu.chain.words import from_hex, quantity
from pinaivu.errors import InvalidEncoding, Misconfigured
from pinaivu.keys import SecretKey, checksum

DEPLOYMENT = Deployment(
    chain_id=31337,
    block=7,
    token=b"\x01" * 20,
    access_manager=b"\x02" * 20,
    settlement=b"\x03" * 20,
    receipt_log=b"\x04" * 20,
    enclave_registry=b"\x05" * 20,
    node_registry=b"\x06" * 20,
    objective_faults=b"\x09" * 20,
    gateway_registry=b"\x07" * 20,
    model_registry=b"\x08" * 20,
)
uint = st.integers(0, 2**64 - 1)


class TestDeployment:
    """The file that says where the contracts are."""

    def test_a_saved_deployment_loads_equal(self, tmp_path: Path) -> None:
        """And leaves no other file behind."""
        path = tmp_path / "new" / "deployment.json"
        DEPLOYMENT.save(path)
        assert Deployment.load(path) == DEPLOYMENT
        assert list(path.parent.iterdir()) == [path]

    def test_a_missing_file_says_what_to_do(self, tmp_path: Path) -> None:
        """Deploy first, or another path."""
        with pytest.raises(Misconfigured, match="deploy first"):
            Deployment.load(tmp_path / "none.json")

    @pytest.mark.parametrize(
        "change",
        [
            {"version": 2},
            {"chain_id": 0},
            {"chain_id": "31337"},
            {"block": -1},
            {"settlement": "0x" + "03" * 19},
            {"settlement": "0x" + "AB" * 20},
            {"settlement": "0x" + "00" * 20},
            {"unknown": 1},
            {"token": None},
        ],
        ids=str,
    )
    def test_anything_else_is_refused(self, change: dict[str, object], tmp_path: Path) -> None:
        """Every member is checked, none may be added."""
        path = tmp_path / "deployment.json"
        document = msgspec.json.decode(DEPLOYMENT.to_json()) | change
        path.write_bytes(msgspec.json.encode(document))
        with pytest.raises(Misconfigured, match=r"deployment\.json"):
            Deployment.load(path)

    @pytest.mark.parametrize("member", msgspec.json.decode(DEPLOYMENT.to_json()))
    def test_no_member_may_be_missing(self, member: str) -> None:
        """Nothing has a default."""
        document = msgspec.json.decode(DEPLOYMENT.to_json())
        del document[member]
        with pytest.raises(InvalidEncoding, match="no deployment"):
            Deployment.from_json(msgspec.json.encode(document))


class TestTransactions:
    """Signed bytes, read back by another implementation."""

    @given(
        nonce=uint,
        tip=uint,
        max_fee=uint,
        gas=uint,
        value=st.integers(0, 2**90),
        data=st.binary(max_size=80),
        to=st.one_of(st.just(b""), st.binary(min_size=20, max_size=20)),
    )
    def test_eth_account_recovers_the_sender(
        self, nonce: int, tip: int, max_fee: int, gas: int, value: int, data: bytes, to: bytes
    ) -> None:
        """Whatever is in the fields."""
        key = SecretKey(b"\x11" * 32)
        signed = DynamicFeeTransaction(31337, nonce, tip, max_fee, gas, to, value, data).sign(key)
        assert Account.recover_transaction(signed.raw) == checksum(key.address)

    def test_eth_account_signs_the_same_bytes_with_an_access_list(self) -> None:
        """Addresses and slots, in their order."""
        key = SecretKey.generate(os.urandom)
        slots = ((b"\xaa" * 20, (b"\x01" * 32, b"\x02" * 32)), (b"\xbb" * 20, ()))
        ours = DynamicFeeTransaction(1, 9, 2, 30, 90_000, b"\xaa" * 20, 0, b"", slots).sign(key)
        theirs = Account.sign_transaction(
            {
                "type": 2,
                "chainId": 1,
                "nonce": 9,
                "maxPriorityFeePerGas": 2,
                "maxFeePerGas": 30,
                "gas": 90_000,
                "to": checksum(b"\xaa" * 20),
                "value": 0,
                "data": "0x",
                "accessList": [
                    {"address": checksum(address), "storageKeys": ["0x" + k.hex() for k in keys]}
                    for address, keys in slots
                ],
            },
            key.secret,
        )
        assert ours.raw == theirs.raw_transaction

    def test_eth_account_signs_the_same_bytes(self) -> None:
        """Same fields, same key, same raw transaction and hash."""
        key = SecretKey.generate(os.urandom)
        ours = DynamicFeeTransaction(1, 9, 2, 30, 21_000, b"\xaa" * 20, 5, b"\x01\x02").sign(key)
        theirs = Account.sign_transaction(
            {
                "type": 2,
                "chainId": 1,
                "nonce": 9,
                "maxPriorityFeePerGas": 2,
                "maxFeePerGas": 30,
                "gas": 21_000,
                "to": checksum(b"\xaa" * 20),
                "value": 5,
                "data": "0x0102",
            },
            key.secret,
        )
        assert (ours.raw, ours.hash) == (theirs.raw_transaction, theirs.hash)


class TestFees:
    """EIP-1559 fees and their replacement."""

    def test_fees_hold_while_the_base_fee_doubles(self) -> None:
        """Ceiling is twice the base fee plus the tip."""
        assert FeePolicy().initial(100, 7) == Fees(tip=7, ceiling=207)

    def test_the_limit_caps_ceiling_and_tip(self) -> None:
        """Nobody pays more than configured."""
        assert FeePolicy(max_ceiling=50).initial(100, 70) == Fees(tip=50, ceiling=50)

    @given(tip=st.integers(1, 10**12), ceiling=st.integers(1, 10**11), base=st.integers(0, 10**11))
    def test_a_replacement_raises_both_by_a_tenth_at_least(
        self, tip: int, ceiling: int, base: int
    ) -> None:
        """Pools refuse less."""
        fees = Fees(tip, ceiling)
        bumped = FeePolicy().bumped(fees, base)
        assert bumped is not None
        assert bumped.tip * 10 >= fees.tip * 11
        assert bumped.ceiling * 10 >= fees.ceiling * 11
        assert bumped.ceiling <= FeePolicy().max_ceiling

    def test_at_the_limit_there_is_no_replacement(self) -> None:
        """A smaller raise would be refused anyway."""
        assert FeePolicy(max_ceiling=110).bumped(Fees(1, 100), 1) is None


class TestAbi:
    """Values in and out of contracts."""

    ABI = ContractAbi(
        "Box",
        b"""{"bytecode": "0x6001", "abi": [
        {"type": "constructor", "inputs": [{"name": "owner", "type": "address"}]},
        {"type": "function", "name": "put", "inputs": [
            {"name": "item", "type": "tuple", "components": [
                {"name": "who", "type": "address"},
                {"name": "marks", "type": "bytes32[]"}]},
            {"name": "amount", "type": "uint96"}],
         "outputs": [{"name": "", "type": "address"}, {"name": "", "type": "bool"}]},
        {"type": "function", "name": "twice", "inputs": [], "outputs": []},
        {"type": "function", "name": "twice", "inputs": [{"name": "n", "type": "uint8"}],
         "outputs": []}]}""",
    )

    def test_a_struct_is_a_tuple_in_the_signature(self) -> None:
        """Which decides the selector."""
        assert self.ABI.function("put").signature == "put((address,bytes32[]),uint96)"

    def test_addresses_are_raw_both_ways(self) -> None:
        """20 bytes in a call, 20 bytes in a result."""
        put = self.ABI.function("put")
        encoded = put.encode((b"\x0a" * 20, [b"\x0b" * 32]), 5)
        assert encoded[:4] == put.selector
        assert b"\x0a" * 20 in encoded
        result = b"\x0a" * 20
        assert put.decode_result(bytes(12) + result + (1).to_bytes(32)) == (result, True)

    @pytest.mark.parametrize(
        "values",
        [
            ((b"\x0a" * 19, []), 5),
            ((b"\x0a" * 20, [b"\x0b" * 33]), 5),
            ((b"\x0a" * 20, []), 1 << 96),
            ((b"\x0a" * 20, []), -1),
            ((b"\x0a" * 20, []),),
        ],
        ids=["short address", "long word", "too wide", "negative", "missing"],
    )
    def test_values_that_do_not_fit_are_refused(self, values: tuple[object, ...]) -> None:
        """Nothing is cut or wrapped round."""
        with pytest.raises(InvalidEncoding, match=r"Box\.put"):
            self.ABI.function("put").encode(*values)

    def test_an_answer_of_another_shape_is_the_endpoints_failure(self) -> None:
        """For instance from an address without code."""
        with pytest.raises(ChainUnavailable, match=r"Box\.put"):
            self.ABI.function("put").decode_result(b"")

    def test_an_overloaded_function_needs_its_signature(self) -> None:
        """A bare name would choose silently."""
        assert self.ABI.function("twice(uint8)").inputs[0].name == "n"
        with pytest.raises(Misconfigured, match="no twice"):
            self.ABI.function("twice")

    def test_creation_is_code_and_arguments(self) -> None:
        """As the deploying transaction carries it."""
        assert self.ABI.creation(b"\x0c" * 20) == b"\x60\x01" + bytes(12) + b"\x0c" * 20


def test_the_anchor_of_no_batch_is_the_empty_tree() -> None:
    """What a first batch names as previous size and root."""
    anchor = Anchor.none(b"\x01" * 32)
    assert (anchor.sequence, anchor.new_size) == (0, 0)
    assert anchor.new_root.hex().startswith("e3b0c442")


@pytest.mark.parametrize(
    ("requested", "movable_at_ms", "leaving", "spendable"),
    [
        (0, 0, 0, 100),
        (40, 0, 40, 60),
        (100, 0, 100, 0),
        (2**96 - 1, 0, 2**96 - 1, 0),
        (0, 5, 100, 0),
        (40, 5, 100, 0),
    ],
    ids=["nothing", "part", "all", "more than all", "move", "move and part"],
)
def test_what_a_payer_has_asked_away_is_not_spendable(
    requested: int, movable_at_ms: int, leaving: int, spendable: int
) -> None:
    """A pending move takes everything along, a request counts in full however much there is."""
    state = PayerState(
        payer=b"\x01" * 20,
        log_id=b"\x02" * 32,
        balance=100,
        requested=requested,
        withdrawable_at_ms=0,
        debt=0,
        next_log_id=bytes(32),
        movable_at_ms=movable_at_ms,
        grant_epoch=0,
    )
    assert (state.leaving, state.spendable) == (leaving, spendable)


@pytest.mark.parametrize("raw", [None, 5, "5", "0xz", {}])
def test_a_quantity_of_another_form_is_the_endpoints_failure(raw: object) -> None:
    with pytest.raises(ChainUnavailable, match="number"):
        quantity(raw)


@pytest.mark.parametrize("raw", [None, b"", "00", "0x0", "0xzz"])
def test_bytes_of_another_form_are_the_endpoints_failure(raw: object) -> None:
    with pytest.raises(ChainUnavailable, match="bytes"):
        from_hex(raw)


def test_abis_load_from_an_archive_outside_the_tree(tmp_path: Path) -> None:
    """As an installed wheel has them: through resources, not paths."""
    archive = tmp_path / "installed.zip"
    root = Path(pinaivu.__file__).parent
    with ZipFile(archive, "w") as packed:
        for path in root.rglob("*"):
            if path.suffix in {".py", ".json"}:
                packed.write(path, path.relative_to(root.parent))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pinaivu.chain import abi\n"
        "assert sys.argv[1] in abi.__file__\n"
        "print(*abi.names()); print(len(abi.load('Settlement').bytecode))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(archive)],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        text=True,
    )
    names, size = ran.stdout.splitlines()
    assert {*CONTRACTS.values(), "AccessManager", "TestToken"} <= set(names.split())
    assert int(size) > 10_000
