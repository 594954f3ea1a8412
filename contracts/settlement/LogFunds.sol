// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILogFunds} from "../interfaces/ILogFunds.sol";
import {IReceiptLog} from "../interfaces/IReceiptLog.sol";
import {SettlementBase} from "./SettlementBase.sol";

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title Ledger, reserve, fees and debit limit of each log
abstract contract LogFunds is SettlementBase, AccessManaged, ILogFunds {
    using SafeERC20 for IERC20;

    /// @dev What administrators and guardian can turn, in one slot, as every batch reads it.
    struct Controls {
        uint40 pausedUntil;
        uint40 nextPauseFrom;
        uint32 limitPpm;
        uint32 nextLimitPpm;
        uint40 nextLimitFrom; // 0: no change waits
    }

    struct ReserveRequest {
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
    /// @dev Two slots per log: sequence, assigned, windowDebited; windowStart, reserve, fees.
    mapping(bytes32 logId => LogState) internal _logs;
    mapping(bytes32 logId => ReserveRequest) private _reserveRequests;

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
        _logs[logId].reserve += amount;
        emit ReserveFunded(logId, msg.sender, amount);
    }

    /// @inheritdoc ILogFunds
    function requestReserveWithdrawal(bytes32 logId, uint96 amount) external onlyOperator(logId) {
        uint40 availableAt = amount == 0 ? 0 : _afterDelay();
        _reserveRequests[logId] = ReserveRequest(amount, availableAt);
        emit ReserveWithdrawalRequested(logId, amount, availableAt);
    }

    /// @inheritdoc ILogFunds
    function withdrawReserve(
        bytes32 logId,
        address to
    ) external nonReentrant onlyOperator(logId) returns (uint96 amount) {
        if (to == address(0)) revert ZeroAddress();
        ReserveRequest memory request = _reserveRequests[logId];
        _checkMatured(request.availableAt);
        delete _reserveRequests[logId];
        LogState storage log = _logs[logId];
        amount = _min(request.requested, log.reserve);
        log.reserve -= amount;
        emit ReserveWithdrawn(logId, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    /// @inheritdoc ILogFunds
    function slashReserve(bytes32 logId) external nonReentrant returns (uint96 amount) {
        if (msg.sender != FAULTS) revert NotFaults(msg.sender);
        amount = _logs[logId].reserve;
        if (amount == 0) return 0;
        _logs[logId].reserve = 0;
        delete _reserveRequests[logId];
        emit ReserveSlashed(logId, amount);
        TOKEN.safeTransfer(FAULTS, amount);
    }

    /// @inheritdoc ILogFunds
    function withdrawFees(
        bytes32 logId,
        address to
    ) external nonReentrant onlyOperator(logId) returns (uint96 amount) {
        if (to == address(0)) revert ZeroAddress();
        amount = _logs[logId].fees;
        if (amount == 0) revert ZeroAmount();
        _logs[logId].fees = 0;
        emit FeesWithdrawn(logId, to, amount);
        TOKEN.safeTransfer(to, amount);
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
        return _logs[logId];
    }

    /// @inheritdoc ILogFunds
    function reserveRequestOf(bytes32 logId) external view returns (uint96 requested, uint40 availableAt) {
        ReserveRequest memory request = _reserveRequests[logId];
        return (request.requested, request.availableAt);
    }

    /// @inheritdoc ILogFunds
    function debitLimit() public view returns (uint32 limitPpm) {
        return _limitOf(_controls);
    }

    /// @inheritdoc ILogFunds
    function debitableNow(bytes32 logId) external view returns (uint256) {
        LogState memory log = _logs[logId];
        _enterWindow(log);
        uint256 limit = _windowLimit(log, debitLimit());
        uint256 left = limit > log.windowDebited ? limit - log.windowDebited : 0;
        return left < log.assigned ? left : log.assigned;
    }

    /// @dev Counts `taken` as debited from the deposits of `log`; reverts above the limit.
    function _takeFromDeposits(
        LogState memory log,
        Controls memory controls,
        bytes32 logId,
        uint96 taken
    ) internal view {
        _enterWindow(log);
        uint256 limit = _windowLimit(log, _limitOf(controls));
        uint96 debited = log.windowDebited + taken;
        if (debited > limit) revert DebitLimitExceeded(logId, debited, limit);
        log.windowDebited = debited;
        log.assigned -= taken;
    }

    function _checkKnown(bytes32 logId) internal view {
        if (RECEIPT_LOG.operatorOf(logId) == address(0)) revert UnknownLog(logId);
    }

    /// @dev Starts a new window if the last one is over.
    function _enterWindow(LogState memory log) private view {
        if (block.timestamp >= uint256(log.windowStart) + LIMITER_WINDOW) {
            log.windowStart = uint40(block.timestamp);
            log.windowDebited = 0;
        }
    }

    /// @dev The share counts from what was assigned when the window began, with what came and went since.
    function _windowLimit(LogState memory log, uint32 limitPpm) private pure returns (uint256) {
        return ((uint256(log.assigned) + log.windowDebited) * limitPpm) / PPM;
    }

    function _limitOf(Controls memory controls) private view returns (uint32) {
        bool changed = controls.nextLimitFrom != 0 && block.timestamp >= controls.nextLimitFrom;
        return changed ? controls.nextLimitPpm : controls.limitPpm;
    }

    function _checkLimit(uint32 limitPpm) private pure {
        if (limitPpm < MIN_LIMIT_PPM || limitPpm > PPM) revert InvalidDebitLimit(limitPpm);
    }
}
