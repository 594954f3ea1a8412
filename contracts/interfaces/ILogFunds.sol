// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ISettlementErrors} from "./ISettlementErrors.sol";

/// @title Money of a log: reserve, fees, and the limit on what its batches may take
/// @notice The reserve is the operator's and covers payers that are short. Every log's debits from
/// deposits are limited to a share of those deposits per window.
/// @dev The limit bounds what a stolen epoch key can take before payers can leave. It is one figure per
/// log, not per payer, and windows tumble: across the border of two windows two shares may go.
interface ILogFunds is ISettlementErrors {
    /// @notice State of a log's ledger.
    /// @param sequence Number of the last settled batch; 0: none.
    /// @param assigned Sum of the balances in the log's ledger.
    /// @param windowDebited Taken from deposits in the present window.
    /// @param windowStart Second at which the present window began.
    /// @param reserve The operator's money that covers payers who are short.
    /// @param fees The operator's earnings, not yet withdrawn.
    struct LogState {
        uint64 sequence;
        uint96 assigned;
        uint96 windowDebited;
        uint40 windowStart;
        uint96 reserve;
        uint96 fees;
    }

    event ReserveFunded(bytes32 indexed logId, address indexed from, uint96 amount);
    /// @notice `requested` of the reserve can be withdrawn from `availableAt` on. 0 and 0: cancelled.
    event ReserveWithdrawalRequested(bytes32 indexed logId, uint96 requested, uint40 availableAt);
    event ReserveWithdrawn(bytes32 indexed logId, address indexed to, uint96 amount);
    /// @notice The whole reserve went to the caller of {slashReserve}, and a waiting withdrawal ended.
    event ReserveSlashed(bytes32 indexed logId, uint96 amount);
    event FeesWithdrawn(bytes32 indexed logId, address indexed to, uint96 amount);
    /// @notice The limit is `limitPpm` of the assigned deposits per window, from `effectiveAt` on.
    event DebitLimitSet(uint32 limitPpm, uint40 effectiveAt);

    error NotOperator(bytes32 logId, address caller);
    error NotFaults(address caller);
    /// @notice The batch would take `debited` in this window, more than `limit`.
    error DebitLimitExceeded(bytes32 logId, uint256 debited, uint256 limit);
    error InvalidDebitLimit(uint32 limitPpm);

    /// @notice Adds `amount` from the caller to the reserve of `logId`.
    function fundReserve(bytes32 logId, uint96 amount) external;

    /// @notice Asks for `amount` of the reserve back, by the log's operator; as with payers, the
    /// withdrawal delay applies, a new request replaces the old one and 0 cancels.
    function requestReserveWithdrawal(bytes32 logId, uint96 amount) external;

    /// @notice Pays the lesser of the requested amount and the reserve to `to`, by the log's operator.
    function withdrawReserve(bytes32 logId, address to) external returns (uint96 amount);

    /// @notice Pays the whole reserve of `logId` to the caller, also while a withdrawal waits, and ends that
    /// withdrawal; by the contract that decides objective faults. Without a reserve nothing happens.
    /// @dev A reserve secures only what is not asked for: a withdrawal that matured can be made before this.
    function slashReserve(bytes32 logId) external returns (uint96 amount);

    /// @notice Pays all fees to `to`, by the log's operator.
    function withdrawFees(bytes32 logId, address to) external returns (uint96 amount);

    /// @notice Sets the share of the assigned deposits, in parts per million, that a window may take.
    /// Lowering works at once, raising after the admin delay; a new call replaces a waiting one. At least
    /// 1 %, so that no administrator can stop settlement with it. By an administrator.
    function setDebitLimit(uint32 limitPpm) external;

    /// @notice Ledger of `logId`.
    function logStateOf(bytes32 logId) external view returns (LogState memory);

    /// @notice Pending withdrawal from the reserve of `logId`; zeros if none.
    function reserveRequestOf(bytes32 logId) external view returns (uint96 requested, uint40 availableAt);

    /// @notice The share in force now, in parts per million.
    function debitLimit() external view returns (uint32 limitPpm);

    /// @notice Base units that batches of `logId` may still take from deposits now.
    function debitableNow(bytes32 logId) external view returns (uint256);
}
