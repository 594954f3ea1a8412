// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IReceiptLog} from "../../contracts/interfaces/IReceiptLog.sol";
import {LogFunds} from "../../contracts/settlement/LogFunds.sol";
import {NodeCredits} from "../../contracts/settlement/NodeCredits.sol";
import {PayerAccounts} from "../../contracts/settlement/PayerAccounts.sol";
import {SettlementBase} from "../../contracts/settlement/SettlementBase.sol";

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @dev The parts of Settlement that apply rows, with balances set from outside.
contract RowsLedger is PayerAccounts, NodeCredits {
    bytes32 private constant LOG = "log";
    uint256 private constant ACCOUNTS_SLOT = 4; // one before Settlement's, which has the anchors at 0

    constructor()
        SettlementBase(IERC20(address(0)), 3 days)
        AccessManaged(address(this))
        LogFunds(IReceiptLog(address(0)), 7 days, 1 days, 1_000_000)
        NodeCredits(INodeRegistry(address(0)))
    {}

    function setBalance(address payer, uint96 amount) external {
        bytes32 slot = keccak256(abi.encode(payer, keccak256(abi.encode(LOG, ACCOUNTS_SLOT))));
        assembly ("memory-safe") {
            sstore(slot, amount)
        }
        assert(this.accountOf(LOG, payer).balance == amount); // else the layout has changed
    }

    function debit(bytes calldata rows, uint96 reserve) external returns (Debits memory) {
        return _debit(LOG, 1, rows, reserve);
    }

    function credit(
        bytes calldata rows,
        uint256 backed,
        uint256 due
    ) external returns (uint256 total, uint256 credited) {
        return _credit(rows, backed, due);
    }
}

/// @title What the rows of a batch come to, for up to two payers and two nodes
/// @dev For all balances, reserves and amounts. That the parties' slots differ is the solver's assumption
/// about keccak256, as it is everybody's.
contract SumsProof {
    address private constant ANNA = address(0xa000);
    address private constant BERT = address(0xb000);
    RowsLedger private immutable LEDGER = new RowsLedger();

    /// @dev What one payer's row takes, by the design: balance first, then reserve, then nothing.
    struct Row {
        uint256 taken;
        uint256 covered;
        uint256 uncovered;
    }

    function check_OneDebit(address payer, uint96 amount, uint96 balance, uint96 reserve) external {
        if (payer == address(0) || amount == 0) return;
        LEDGER.setBalance(payer, balance);
        PayerAccounts.Debits memory debits = _debit(abi.encodePacked(payer, amount), reserve);
        Row memory row = _row(amount, balance, reserve);
        assert(debits.due == amount && debits.due == row.taken + row.covered + row.uncovered);
        assert(debits.taken == row.taken && debits.covered == row.covered);
        assert(debits.uncovered == row.uncovered);
        assert(_balanceOf(payer) == balance - row.taken);
        assert(_debtOf(payer) == row.covered);
    }

    /// @dev Amounts to 65,535 only and of two fixed payers, as the solver gets lost in more: at full width one
    /// row is proven above, and the reading of any parties apart.
    function check_TwoDebits(
        uint16[2] calldata amounts,
        uint16[2] calldata balances,
        uint16 reserve
    ) external {
        if (amounts[0] == 0 || amounts[1] == 0) return;
        LEDGER.setBalance(ANNA, balances[0]);
        LEDGER.setBalance(BERT, balances[1]);
        bytes memory rows = abi.encodePacked(ANNA, uint96(amounts[0]), BERT, uint96(amounts[1]));
        PayerAccounts.Debits memory debits = _debit(rows, reserve);
        assert(debits.due == uint256(amounts[0]) + amounts[1]);
        assert(debits.covered <= reserve);
        assert(uint256(debits.taken) + debits.covered + debits.uncovered == debits.due);
        assert(_balanceOf(ANNA) + _balanceOf(BERT) + debits.taken == uint256(balances[0]) + balances[1]);
        assert(_debtOf(ANNA) + _debtOf(BERT) == debits.covered);
    }

    /// @dev Backed in full: every node gets its row, to the base unit.
    function check_TwoCredits(address[2] calldata nodes, uint96[2] calldata amounts, uint256 due) external {
        if (nodes[0] == address(0) || nodes[1] <= nodes[0] || amounts[0] == 0 || amounts[1] == 0) return;
        bytes memory rows = abi.encodePacked(nodes[0], amounts[0], nodes[1], amounts[1]);
        (uint256 total, uint256 credited) = _credit(rows, due, due);
        assert(total == uint256(amounts[0]) + amounts[1] && credited == total);
        for (uint256 i = 0; i < 2; ++i) {
            (uint128 credit, uint128 lifetime) = LEDGER.creditOf(nodes[i]);
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

    /// @dev A revert would end a proof unnoticed, so it is made to fail it.
    function _debit(bytes memory rows, uint96 reserve) private returns (PayerAccounts.Debits memory debits) {
        try LEDGER.debit(rows, reserve) returns (PayerAccounts.Debits memory result) {
            return result;
        } catch {
            assert(false);
        }
    }

    function _credit(bytes memory rows, uint256 backed, uint256 due) private returns (uint256, uint256) {
        try LEDGER.credit(rows, backed, due) returns (uint256 total, uint256 credited) {
            return (total, credited);
        } catch {
            assert(false);
        }
        return (0, 0);
    }

    function _row(uint256 amount, uint256 balance, uint256 reserve) private pure returns (Row memory row) {
        row.taken = amount < balance ? amount : balance;
        uint256 gap = amount - row.taken;
        row.covered = gap < reserve ? gap : reserve;
        row.uncovered = gap - row.covered;
    }

    function _balanceOf(address payer) private view returns (uint256) {
        return LEDGER.accountOf("log", payer).balance;
    }

    function _debtOf(address payer) private view returns (uint256) {
        return LEDGER.debtOf("log", payer);
    }
}
