// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IReceiptLog} from "../../contracts/interfaces/IReceiptLog.sol";
import {PackedRows} from "../../contracts/libraries/PackedRows.sol";
import {Batch} from "../../contracts/libraries/TypedData.sol";
import {LogFunds} from "../../contracts/settlement/LogFunds.sol";
import {NodeCredits} from "../../contracts/settlement/NodeCredits.sol";
import {PayerAccounts} from "../../contracts/settlement/PayerAccounts.sol";
import {SettlementBase} from "../../contracts/settlement/SettlementBase.sol";

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @dev The parts of Settlement that apply rows, with accounts and reserve set from outside.
contract RowsLedger is PayerAccounts, NodeCredits {
    uint256 private constant ACCOUNTS_SLOT = 5; // one before Settlement's, which has the anchors at 0

    constructor()
        SettlementBase(IERC20(address(0)), 3 days)
        AccessManaged(address(this))
        LogFunds(IReceiptLog(address(0)), address(0), 7 days, 1 days, 1_000_000)
        NodeCredits(INodeRegistry(address(0)))
    {}

    function setReserve(bytes32 logId, uint96 amount) external {
        _reserves[logId].amount = amount;
    }

    /// @param word The account's whole slot: balance in the low 96 bits, the request above.
    function setAccount(bytes32 logId, address payer, uint256 word) external {
        bytes32 slot = _slotOf(logId, payer);
        assembly ("memory-safe") {
            sstore(slot, word)
        }
        assert(this.accountOf(logId, payer).balance == uint96(word)); // else the layout has changed
    }

    function debit(Batch calldata batch) external returns (Debits memory) {
        return _debit(batch);
    }

    function credit(
        bytes calldata rows,
        uint256 backed,
        uint256 due
    ) external returns (uint256 total, uint256 credited) {
        return _credit(rows, backed, due);
    }

    function reserveOf(bytes32 logId) external view returns (uint96) {
        return _reserves[logId].amount;
    }

    function wordOf(bytes32 logId, address payer) external view returns (uint256 word) {
        bytes32 slot = _slotOf(logId, payer);
        assembly ("memory-safe") {
            word := sload(slot)
        }
    }

    function _slotOf(bytes32 logId, address payer) private pure returns (bytes32) {
        return keccak256(abi.encode(payer, keccak256(abi.encode(logId, ACCOUNTS_SLOT))));
    }
}

/// @title What the rows of a batch come to
/// @dev Halmos runs the compiled code on symbolic rows, accounts and reserve, all at full width: one debit
/// against the specification, two against one and one, two credits. Longer batches repeat the same loop body;
/// that they do is tested. Not proven: events, and payers who are in debt already.
contract SumsProof {
    bytes32 private constant LOG = "log";
    bytes32 private constant OTHER = "other";
    RowsLedger private immutable LEDGER = new RowsLedger();

    /// @dev What debits should come to; `refusal` is the error, empty where all rows are accepted.
    struct Outcome {
        bytes refusal;
        uint256 due;
        uint256 covered;
        uint256 uncovered;
        uint256[] takenOf;
        uint256[] coveredOf;
    }

    function check_NoDebits(uint96 reserve) external {
        _checkDebits(new uint256[](0), new uint256[](0), reserve);
    }

    /// @dev Every part of a row is refused, whether or not whole ones come before it.
    function check_PartsOfDebits(bytes32 a, bytes31 b) external {
        for (uint256 length = 1; length < 64; ++length) {
            if (length == 32) continue;
            bytes memory rows = abi.encodePacked(a, b);
            assembly ("memory-safe") {
                mstore(rows, length)
            }
            (bool success, bytes memory reason) = _debit(LOG, rows);
            bytes memory expected = abi.encodeWithSelector(PackedRows.WrongRowsLength.selector, length);
            assert(!success && keccak256(reason) == keccak256(expected));
        }
    }

    /// @dev Every word of calldata, every account with its request, every reserve.
    function check_OneDebit(uint256 row, uint256 account, uint96 reserve) external {
        (uint256[] memory rows, uint256[] memory accounts) = (new uint256[](1), new uint256[](1));
        (rows[0], accounts[0]) = (row, account);
        _checkDebits(rows, accounts, reserve);
    }

    /// @dev Every order of two parties, refused or accepted; what they owe and have is one case of many.
    function check_TwoPayers(address[2] calldata payer) external {
        (uint256[] memory rows, uint256[] memory accounts) = (new uint256[](2), new uint256[](2));
        for (uint256 i = 0; i < 2; ++i) {
            rows[i] = (uint256(uint160(payer[i])) << 96) | (i + 2);
            accounts[i] = 1;
        }
        _checkDebits(rows, accounts, 2);
    }

    /// @dev Every amount, account with its request, and reserve.
    function check_TwoDebitsAreOneAndOne(
        uint96[2] calldata amount,
        uint256[2] calldata account,
        uint96 reserve
    ) external {
        (uint256[] memory rows, uint256[] memory accounts) = (new uint256[](2), new uint256[](2));
        for (uint256 i = 0; i < 2; ++i) {
            (rows[i], accounts[i]) = (((i + 1) << 96) | amount[i], account[i]);
        }
        _checkDebitsAreTheirParts(rows, accounts, reserve);
    }

    /// @dev Backed in full: every node gets its own row, to the base unit.
    function check_TwoCredits(uint96[2] calldata amounts, uint256 due) external {
        if (amounts[0] == 0 || amounts[1] == 0) return;
        bytes memory rows = abi.encodePacked(address(1), amounts[0], address(2), amounts[1]);
        (uint256 total, uint256 credited) = _credit(rows, due, due);
        assert(total == uint256(amounts[0]) + amounts[1] && credited == total);
        for (uint256 i = 0; i < 2; ++i) {
            (uint128 credit, uint128 lifetime) = LEDGER.creditOf(address(uint160(i + 1)));
            assert(credit == amounts[i] && lifetime == amounts[i]);
        }
    }

    /// @dev Backed in part: a node gets `floor(amount * backed / due)`. That this neither reverts nor exceeds
    /// `backed` is arithmetic that solvers can't do at this width; testFuzz_NothingIsCreditedUnbacked tries it.
    function check_AScaledCredit(address node, uint96 amount, uint128 backed, uint128 due) external {
        if (node == address(0) || amount == 0 || backed >= due || amount > due) return;
        (uint256 total, uint256 credited) = LEDGER.credit(abi.encodePacked(node, amount), backed, due);
        uint128 share = uint128((uint256(amount) * backed) / due);
        assert(total == amount && credited == share);
        (uint128 credit, uint128 lifetime) = LEDGER.creditOf(node);
        assert(credit == share && lifetime == share);
    }

    /// @dev The code refuses what the specification refuses, with the same error, and else leaves the same sums,
    /// accounts (the request above the balance untouched), debts and reserve.
    function _checkDebits(uint256[] memory rows, uint256[] memory accounts, uint96 reserve) private {
        if (!_fitTheLedger(accounts)) return;
        Outcome memory expected = _specified(rows, accounts, reserve);
        _setUp(LOG, rows, accounts, reserve);
        (bool success, bytes memory result) = _debit(LOG, abi.encodePacked(rows));
        assert(success == (expected.refusal.length == 0));
        if (!success) {
            assert(keccak256(result) == keccak256(expected.refusal));
            return;
        }
        _checkSums(abi.decode(result, (PayerAccounts.Debits)), expected);
        unchecked {
            assert(LEDGER.reserveOf(LOG) == reserve - expected.covered);
            for (uint256 i = 0; i < rows.length; ++i) {
                address payer = _payer(rows[i]);
                assert(LEDGER.wordOf(LOG, payer) == accounts[i] - expected.takenOf[i]);
                assert(LEDGER.debtOf(LOG, payer) == expected.coveredOf[i]);
            }
        }
    }

    /// @dev Rows debited in one batch leave what they leave in two, the last row being the second.
    function _checkDebitsAreTheirParts(
        uint256[] memory rows,
        uint256[] memory accounts,
        uint256 reserve
    ) private {
        if (!_fitTheLedger(accounts)) return;
        _setUp(LOG, rows, accounts, reserve);
        _setUp(OTHER, rows, accounts, reserve);
        (bytes memory first, bytes memory last) = _split(abi.encodePacked(rows));
        (bool success, bytes memory result) = _debit(LOG, bytes.concat(first, last));
        (bool successOfFirst, bytes memory resultOfFirst) = _debit(OTHER, first);
        if (!successOfFirst) {
            assert(!success && keccak256(result) == keccak256(resultOfFirst));
            return;
        }
        (bool successOfLast, bytes memory resultOfLast) = _debit(OTHER, last);
        if (!successOfLast) {
            assert(!success && keccak256(result) == keccak256(resultOfLast));
            return;
        }
        PayerAccounts.Debits memory a = abi.decode(resultOfFirst, (PayerAccounts.Debits));
        PayerAccounts.Debits memory b = abi.decode(resultOfLast, (PayerAccounts.Debits));
        unchecked {
            uint256 uncovered = uint256(a.uncovered) + b.uncovered;
            assert(success == (uncovered <= type(uint96).max));
            if (!success) return;
            PayerAccounts.Debits memory whole = abi.decode(result, (PayerAccounts.Debits));
            assert(whole.due == a.due + b.due);
            assert(whole.taken == a.taken + b.taken);
            assert(whole.covered == a.covered + b.covered);
            assert(whole.uncovered == uncovered);
        }
        assert(LEDGER.reserveOf(LOG) == LEDGER.reserveOf(OTHER));
        for (uint256 i = 0; i < rows.length; ++i) {
            address payer = _payer(rows[i]);
            assert(LEDGER.wordOf(LOG, payer) == LEDGER.wordOf(OTHER, payer));
            assert(LEDGER.debtOf(LOG, payer) == LEDGER.debtOf(OTHER, payer));
        }
    }

    function _setUp(
        bytes32 logId,
        uint256[] memory rows,
        uint256[] memory accounts,
        uint256 reserve
    ) private {
        LEDGER.setReserve(logId, uint96(reserve));
        for (uint256 i = 0; i < rows.length; ++i) {
            LEDGER.setAccount(logId, _payer(rows[i]), accounts[i]);
        }
    }

    function _split(bytes memory rows) private pure returns (bytes memory first, bytes memory last) {
        last = new bytes(32);
        uint256 count = rows.length / 32;
        first = new bytes(rows.length - 32);
        assembly ("memory-safe") {
            mcopy(add(first, 32), add(rows, 32), mul(32, sub(count, 1)))
            mstore(add(last, 32), mload(add(rows, mul(32, count))))
        }
    }

    function _checkSums(PayerAccounts.Debits memory debits, Outcome memory expected) private pure {
        assert(debits.due == expected.due);
        assert(debits.covered == expected.covered);
        assert(debits.uncovered == expected.uncovered);
        unchecked {
            assert(debits.taken == expected.due - expected.covered - expected.uncovered);
        }
    }

    /// @dev By the design: balance first, then reserve, then nothing. Refused are the first row that is not
    /// after the one before it or has no amount, and a sum from nowhere that has no 96 bits.
    function _specified(
        uint256[] memory rows,
        uint256[] memory accounts,
        uint256 reserve
    ) private pure returns (Outcome memory outcome) {
        outcome.takenOf = new uint256[](rows.length);
        outcome.coveredOf = new uint256[](rows.length);
        uint256 previous = 0;
        unchecked {
            for (uint256 i = 0; i < rows.length; ++i) {
                outcome.refusal = _refusal(previous, rows[i]);
                if (outcome.refusal.length != 0) return outcome;
                previous = uint160(_payer(rows[i]));
                (uint256 amount, uint256 balance) = (uint96(rows[i]), uint96(accounts[i]));
                outcome.due += amount;
                outcome.takenOf[i] = amount;
                if (amount <= balance) continue;
                outcome.takenOf[i] = balance;
                uint256 gap = amount - balance;
                uint256 left = reserve - outcome.covered;
                outcome.coveredOf[i] = gap <= left ? gap : left;
                outcome.covered += outcome.coveredOf[i];
                outcome.uncovered += gap - outcome.coveredOf[i];
                if (outcome.uncovered > type(uint96).max) {
                    outcome.refusal = abi.encodeWithSignature("Panic(uint256)", 0x11);
                    return outcome;
                }
            }
        }
    }

    function _refusal(uint256 previous, uint256 row) private pure returns (bytes memory) {
        uint256 payer = uint160(_payer(row));
        if (payer <= previous) {
            return abi.encodeWithSelector(PackedRows.RowsNotAscending.selector, previous, payer);
        }
        if (uint96(row) == 0) return abi.encodeWithSelector(PackedRows.ZeroRow.selector, payer);
        return "";
    }

    /// @dev All balances of a log together are its ledger's `assigned`, which has 96 bits.
    function _fitTheLedger(uint256[] memory accounts) private pure returns (bool) {
        uint256 assigned = 0;
        unchecked {
            for (uint256 i = 0; i < accounts.length; ++i) {
                assigned += uint96(accounts[i]);
            }
        }
        return assigned <= type(uint96).max;
    }

    function _payer(uint256 row) private pure returns (address) {
        return address(uint160(row >> 96));
    }

    function _debit(bytes32 logId, bytes memory rows) private returns (bool, bytes memory) {
        Batch memory batch;
        (batch.logId, batch.sequence, batch.debits) = (logId, 1, rows);
        return address(LEDGER).call(abi.encodeCall(RowsLedger.debit, (batch)));
    }

    /// @dev A revert would end a proof unnoticed, so it is made to fail it.
    function _credit(bytes memory rows, uint256 backed, uint256 due) private returns (uint256, uint256) {
        try LEDGER.credit(rows, backed, due) returns (uint256 total, uint256 credited) {
            return (total, credited);
        } catch {
            assert(false);
        }
        return (0, 0);
    }
}
