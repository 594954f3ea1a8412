// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILogFunds} from "../interfaces/ILogFunds.sol";
import {IReceiptLog} from "../interfaces/IReceiptLog.sol";
import {SettlementBase} from "./SettlementBase.sol";

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

/// @title Ledger, reserve, fees and debit limit of each log
abstract contract LogFunds is SettlementBase, AccessManaged, ILogFunds {
    /// @dev What administrators and guardian can turn, in one slot, as every batch reads it.
    struct Controls {
        uint40 pausedUntil;
        uint40 nextPauseFrom;
        uint32 limitPpm;
        uint32 nextLimitPpm;
        uint40 nextLimitFrom; // 0: no change waits
    }

    /// @dev What every batch of a log reads and writes, in one slot. 2^32 batches are enough for one each
    /// second until {drainedAt} ends in 2106; after either only deposits and withdrawals go on.
    struct Ledger {
        uint32 sequence;
        uint32 drainedAt;
        uint96 assigned;
        uint96 fees;
    }

    /// @dev One slot; an account of the operator's.
    struct Reserve {
        uint96 amount;
        uint96 requested;
        uint40 availableAt;
    }

    uint32 internal constant PPM = 1_000_000;
    uint32 private constant MIN_LIMIT_PPM = 10_000;

    IReceiptLog internal immutable RECEIPT_LOG;
    address internal immutable FAULTS;
    uint32 internal immutable ADMIN_DELAY;
    uint32 internal immutable LIMITER_WINDOW;

    Controls internal _controls;
    mapping(bytes32 logId => Ledger) internal _ledgers;
    mapping(bytes32 logId => Reserve) internal _reserves;

    constructor(
        IReceiptLog receiptLog_,
        address faults_,
        uint32 adminDelay,
        uint32 limiterWindow,
        uint32 limitPpm
    ) {
        RECEIPT_LOG = receiptLog_;
        FAULTS = faults_;
        ADMIN_DELAY = adminDelay;
        LIMITER_WINDOW = limiterWindow;
        _checkLimit(limitPpm);
        _controls.limitPpm = limitPpm;
        emit DebitLimitSet(limitPpm, uint40(block.timestamp));
    }

    modifier onlyOperator(bytes32 logId) {
        if (RECEIPT_LOG.operatorOf(logId) != msg.sender) revert NotOperator(logId, msg.sender);
        _;
    }

    /// @inheritdoc ILogFunds
    function fundReserve(bytes32 logId, uint96 amount) external nonReentrant {
        _checkKnown(logId);
        _pull(amount);
        Reserve storage reserve = _reserves[logId];
        reserve.requested = _min(reserve.requested, reserve.amount); // as with payers' deposits
        reserve.amount += amount;
        emit ReserveFunded(logId, msg.sender, amount);
    }

    /// @inheritdoc ILogFunds
    function requestReserveWithdrawal(bytes32 logId, uint96 amount) external onlyOperator(logId) {
        uint40 availableAt = amount == 0 ? 0 : _afterDelay();
        Reserve storage reserve = _reserves[logId];
        (reserve.requested, reserve.availableAt) = (amount, availableAt);
        emit ReserveWithdrawalRequested(logId, amount, availableAt);
    }

    /// @inheritdoc ILogFunds
    function withdrawReserve(
        bytes32 logId,
        address to
    ) external nonReentrant onlyOperator(logId) returns (uint96 amount) {
        if (to == address(0)) revert ZeroAddress();
        Reserve memory reserve = _reserves[logId];
        _checkMatured(reserve.availableAt);
        amount = _min(reserve.requested, reserve.amount);
        _reserves[logId] = Reserve(reserve.amount - amount, 0, 0);
        emit ReserveWithdrawn(logId, to, amount);
        _push(to, amount);
    }

    /// @inheritdoc ILogFunds
    function slashReserve(bytes32 logId) external nonReentrant returns (uint96 amount) {
        if (msg.sender != FAULTS) revert NotFaults(msg.sender);
        amount = _reserves[logId].amount;
        if (amount == 0) return 0;
        delete _reserves[logId];
        emit ReserveSlashed(logId, amount);
        return uint96(_push(FAULTS, amount));
    }

    /// @inheritdoc ILogFunds
    function withdrawFees(
        bytes32 logId,
        address to
    ) external nonReentrant onlyOperator(logId) returns (uint96 amount) {
        if (to == address(0)) revert ZeroAddress();
        amount = _ledgers[logId].fees;
        if (amount == 0) revert ZeroAmount();
        _ledgers[logId].fees = 0;
        emit FeesWithdrawn(logId, to, amount);
        _push(to, amount);
    }

    /// @inheritdoc ILogFunds
    function setDebitLimit(uint32 limitPpm) external restricted {
        _checkLimit(limitPpm);
        uint32 present = debitLimit();
        uint40 effectiveAt = uint40(block.timestamp);
        if (limitPpm <= present) {
            (_controls.limitPpm, _controls.nextLimitPpm, _controls.nextLimitFrom) = (limitPpm, 0, 0);
        } else {
            effectiveAt += ADMIN_DELAY;
            (_controls.limitPpm, _controls.nextLimitPpm, _controls.nextLimitFrom) = (
                present,
                limitPpm,
                effectiveAt
            );
        }
        emit DebitLimitSet(limitPpm, effectiveAt);
    }

    /// @inheritdoc ILogFunds
    function logStateOf(bytes32 logId) external view returns (LogState memory) {
        Ledger memory ledger = _ledgers[logId];
        return
            LogState({
                sequence: ledger.sequence,
                assigned: ledger.assigned,
                drainedAt: ledger.drainedAt,
                reserve: _reserves[logId].amount,
                fees: ledger.fees
            });
    }

    /// @inheritdoc ILogFunds
    function reserveRequestOf(bytes32 logId) external view returns (uint96 requested, uint40 availableAt) {
        Reserve memory reserve = _reserves[logId];
        return (reserve.requested, reserve.availableAt);
    }

    /// @inheritdoc ILogFunds
    function debitLimit() public view returns (uint32 limitPpm) {
        return _limitOf(_controls);
    }

    /// @inheritdoc ILogFunds
    function pendingDebitLimit() external view returns (uint32 limitPpm, uint40 effectiveAt) {
        Controls memory controls = _controls;
        if (block.timestamp >= controls.nextLimitFrom) return (0, 0);
        return (controls.nextLimitPpm, controls.nextLimitFrom);
    }

    /// @inheritdoc ILogFunds
    function debitableNow(bytes32 logId) external view returns (uint256) {
        Ledger memory ledger = _ledgers[logId];
        uint32 limitPpm = debitLimit();
        if (limitPpm == PPM) return ledger.assigned;
        (, uint256 room) = _drained(ledger);
        return (uint256(ledger.assigned) * limitPpm * room) / (uint256(PPM) * LIMITER_WINDOW);
    }

    /// @dev Takes `taken` from the deposits of `ledger` as far as the limit allows, else reverts.
    function _takeFromDeposits(
        Ledger memory ledger,
        Controls memory controls,
        bytes32 logId,
        uint96 taken
    ) internal view {
        uint32 limitPpm = _limitOf(controls);
        if (taken != 0 && limitPpm != PPM) {
            (uint256 drainedAt, uint256 room) = _drained(ledger);
            uint256 share = uint256(ledger.assigned) * limitPpm; // of PPM
            uint256 filled = Math.ceilDiv(uint256(taken) * PPM * LIMITER_WINDOW, share);
            if (filled > room) {
                revert DebitLimitExceeded(logId, taken, (share * room) / (uint256(PPM) * LIMITER_WINDOW));
            }
            ledger.drainedAt = SafeCast.toUint32(drainedAt + filled);
        }
        ledger.assigned -= taken;
    }

    /// @dev One write; assigning the struct would read and write the slot once for each member.
    function _store(bytes32 logId, Ledger memory ledger) internal {
        Ledger storage entry = _ledgers[logId];
        uint256 word =
            ledger.sequence
                | (uint256(ledger.drainedAt) << 32)
                | (uint256(ledger.assigned) << 64)
                | (uint256(ledger.fees) << 160);
        // solhint-disable-next-line no-inline-assembly
        assembly ("memory-safe") {
            sstore(entry.slot, word)
        }
    }

    function _checkKnown(bytes32 logId) internal view {
        if (RECEIPT_LOG.operatorOf(logId) == address(0)) revert UnknownLog(logId);
    }

    /// @dev The bucket is a time: it drains a second per second and is full a window ahead of now.
    /// @return drainedAt Second at which it is empty, not before now.
    /// @return room Seconds by which that may still be put off.
    function _drained(Ledger memory ledger) private view returns (uint256 drainedAt, uint256 room) {
        drainedAt = Math.max(ledger.drainedAt, block.timestamp);
        room = Math.saturatingSub(block.timestamp + LIMITER_WINDOW, drainedAt);
    }

    function _limitOf(Controls memory controls) private view returns (uint32) {
        bool changed = controls.nextLimitFrom != 0 && block.timestamp >= controls.nextLimitFrom;
        return changed ? controls.nextLimitPpm : controls.limitPpm;
    }

    function _checkLimit(uint32 limitPpm) private pure {
        if (limitPpm < MIN_LIMIT_PPM || limitPpm > PPM) revert InvalidDebitLimit(limitPpm);
    }
}
