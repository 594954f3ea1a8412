// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IPayerAccounts} from "../interfaces/IPayerAccounts.sol";
import {PackedRows} from "../libraries/PackedRows.sol";
import {Batch} from "../libraries/TypedData.sol";
import {LogFunds} from "./LogFunds.sol";

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";

/// @title Payers' balances
/// @dev Balances are keyed by log, so that a debit by the wrong log finds nothing and a row costs one slot.
abstract contract PayerAccounts is LogFunds, IPayerAccounts {
    using PackedRows for bytes;
    /// @dev What a batch's debits came to. `due = taken + covered + uncovered`.
    struct Debits {
        uint256 due;
        uint96 taken; // from balances
        uint96 covered; // from the reserve
        uint96 uncovered; // from nowhere
    }

    /// @dev One slot per log and payer.
    mapping(bytes32 logId => mapping(address payer => Account)) private _accounts;
    mapping(bytes32 logId => mapping(address payer => uint96)) private _debts;
    mapping(address payer => Payer) private _payers;

    /// @inheritdoc IPayerAccounts
    function deposit(uint96 amount) external nonReentrant {
        _deposit(msg.sender, amount);
    }

    /// @inheritdoc IPayerAccounts
    function depositFor(address payer, uint96 amount) external nonReentrant {
        _deposit(payer, amount);
    }

    /// @inheritdoc IPayerAccounts
    function depositWithPermit(
        address payer,
        uint96 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant {
        // A failure is no error here: the permit may have been submitted already; the pull decides.
        // solhint-disable no-empty-blocks
        try
            IERC20Permit(address(TOKEN)).permit(msg.sender, address(this), amount, deadline, v, r, s)
        {} catch {}
        // solhint-enable no-empty-blocks
        _deposit(payer, amount);
    }

    /// @inheritdoc IPayerAccounts
    function assign(bytes32 logId) external {
        _checkKnown(logId);
        Payer storage payer = _payers[msg.sender];
        if (payer.logId != 0) revert AlreadyAssigned(msg.sender, payer.logId);
        (uint96 balance, uint96 repaid) = _move(payer, 0, logId);
        emit Assigned(msg.sender, logId, balance, repaid);
    }

    /// @inheritdoc IPayerAccounts
    function requestMove(bytes32 nextLogId) external {
        Payer storage payer = _payers[msg.sender];
        bytes32 logId = payer.logId;
        if (logId == 0) revert NotAssigned(msg.sender);
        if (nextLogId != 0) _checkKnown(nextLogId);
        uint40 movableAt = nextLogId == logId ? 0 : _afterDelay();
        (payer.nextLogId, payer.movableAt) = (nextLogId, movableAt);
        emit MoveRequested(msg.sender, logId, nextLogId, movableAt);
    }

    /// @inheritdoc IPayerAccounts
    function completeMove() external {
        Payer storage payer = _payers[msg.sender];
        _checkMatured(payer.movableAt);
        (bytes32 from, bytes32 to) = (payer.logId, payer.nextLogId);
        (uint96 balance, uint96 repaid) = _move(payer, from, to);
        emit Moved(msg.sender, from, to, balance, repaid);
    }

    /// @inheritdoc IPayerAccounts
    function bumpGrantEpoch() external returns (uint64 grantEpoch) {
        grantEpoch = ++_payers[msg.sender].grantEpoch;
        emit GrantEpochBumped(msg.sender, grantEpoch);
    }

    /// @inheritdoc IPayerAccounts
    function requestWithdrawal(uint96 amount) external {
        bytes32 logId = _payers[msg.sender].logId;
        uint40 availableAt = amount == 0 ? 0 : _afterDelay();
        Account storage account = _accounts[logId][msg.sender];
        (account.requested, account.availableAt) = (amount, availableAt);
        emit WithdrawalRequested(msg.sender, logId, amount, availableAt);
    }

    /// @inheritdoc IPayerAccounts
    function withdraw(address to) external nonReentrant returns (uint96 amount) {
        if (to == address(0)) revert ZeroAddress();
        bytes32 logId = _payers[msg.sender].logId;
        Account memory account = _accounts[logId][msg.sender];
        _checkMatured(account.availableAt);
        amount = _min(account.requested, account.balance);
        _accounts[logId][msg.sender] = Account(account.balance - amount, 0, 0);
        _ledgers[logId].assigned -= amount;
        emit Withdrawn(msg.sender, logId, to, amount);
        _push(to, amount);
    }

    /// @inheritdoc IPayerAccounts
    function accountOf(bytes32 logId, address payer) external view returns (Account memory) {
        return _accounts[logId][payer];
    }

    /// @inheritdoc IPayerAccounts
    function payerOf(address payer) external view returns (Payer memory) {
        return _payers[payer];
    }

    /// @inheritdoc IPayerAccounts
    function debtOf(bytes32 logId, address payer) external view returns (uint96) {
        return _debts[logId][payer];
    }

    /// @dev Debits every row from its payer's balance in the log, then from the reserve at the payer's debt.
    /// Leaves it to the caller to book `taken` on the ledger. Ordinary rows go by {_debitCovered}; the row
    /// at which that stops is refused or paid here.
    function _debit(Batch calldata batch) internal returns (Debits memory debits) {
        mapping(address => Account) storage accounts = _accounts[batch.logId];
        bytes calldata rows = batch.debits;
        uint256 count = rows.count();
        (uint256 next, address payer, uint256 due) = _debitCovered(accounts, rows, 0, address(0), 0);
        while (next != count) {
            uint96 amount;
            (payer, amount) = rows.rowAfter(payer, next);
            uint96 balance = accounts[payer].balance; // below the amount
            accounts[payer].balance = 0;
            _short(batch, payer, amount - balance, debits);
            (next, payer, due) = _debitCovered(accounts, rows, next + 1, payer, due + amount);
        }
        debits.due = due;
        // Below 2^96, as all balances of the log together are: they are the ledger's `assigned`.
        debits.taken = uint96(due - debits.covered - debits.uncovered);
    }

    /// @dev Debits rows from `next` on while each comes after `payer`, is not zero, and is covered by its
    /// balance; stops before the first other one. Can't wrap: a balance is the low 96 bits of its word and
    /// not below the amount, and calldata holds no 2^160 rows. Assembly saves 50 gas for each row against
    /// the leanest Solidity, 450 against a struct's members.
    /// @return The row at which it stopped, the payer of the row before, and `due` with the rows' amounts.
    function _debitCovered(
        mapping(address => Account) storage accounts,
        bytes calldata rows,
        uint256 next,
        address payer,
        uint256 due
    ) private returns (uint256, address, uint256) {
        // solhint-disable-next-line no-inline-assembly
        assembly ("memory-safe") {
            let low96 := 0xffffffffffffffffffffffff
            let start := rows.offset
            let end := add(start, rows.length)
            let at := add(start, mul(next, 32))
            mstore(32, accounts.slot)
            for {} lt(at, end) {
                at := add(at, 32)
            } {
                let row := calldataload(at)
                let party := shr(96, row)
                let amount := and(row, low96)
                mstore(0, party)
                let account := keccak256(0, 64)
                let word := sload(account)
                if or(or(iszero(gt(party, payer)), iszero(amount)), gt(amount, and(word, low96))) {
                    break
                }
                sstore(account, sub(word, amount))
                due := add(due, amount)
                payer := party
            }
            next := div(sub(at, start), 32)
        }
        return (next, payer, due);
    }

    /// @dev Takes what a payer lacks from the reserve, as far as that goes, and books it as debt.
    function _short(Batch calldata batch, address payer, uint96 gap, Debits memory debits) private {
        bytes32 logId = batch.logId;
        Reserve storage reserve = _reserves[logId];
        uint96 covered = _min(gap, reserve.amount);
        uint96 uncovered = gap - covered;
        reserve.amount -= covered;
        debits.covered += covered;
        debits.uncovered += uncovered;
        _debts[logId][payer] += covered;
        emit PayerShort(logId, batch.sequence, payer, covered, uncovered);
    }

    function _deposit(address payer, uint96 amount) private {
        if (payer == address(0)) revert ZeroAddress();
        _pull(amount);
        bytes32 logId = _payers[payer].logId;
        Account storage account = _accounts[logId][payer];
        account.requested = _min(account.requested, account.balance); // money that came later waits its own delay
        uint96 repaid = _add(logId, payer, amount);
        emit Deposited(payer, logId, msg.sender, amount, repaid);
    }

    /// @dev Moves the caller's account from one ledger to another and ends a pending move.
    function _move(
        Payer storage payer,
        bytes32 from,
        bytes32 to
    ) private returns (uint96 balance, uint96 repaid) {
        Account memory account = _accounts[from][msg.sender];
        delete _accounts[from][msg.sender];
        balance = account.balance;
        _ledgers[from].assigned -= balance;
        (payer.logId, payer.nextLogId, payer.movableAt) = (to, 0, 0);
        _accounts[to][msg.sender] = Account(0, account.requested, account.availableAt);
        repaid = _add(to, msg.sender, balance);
    }

    /// @dev Adds `amount` to the payer's balance in `logId`, after repaying its debt to the reserve.
    function _add(bytes32 logId, address payer, uint96 amount) private returns (uint96 repaid) {
        uint96 debt = _debts[logId][payer];
        if (debt != 0) {
            repaid = _min(debt, amount);
            _debts[logId][payer] = debt - repaid;
            _reserves[logId].amount += repaid;
        }
        _accounts[logId][payer].balance += amount - repaid;
        _ledgers[logId].assigned += amount - repaid;
    }
}
