// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Errors that several parts of Settlement share
interface ISettlementErrors {
    error ZeroAmount();
    error ZeroAddress();
    error UnknownLog(bytes32 logId);
    /// @notice No withdrawal is pending.
    error NothingRequested();
    /// @notice The delay ends at `availableAt`.
    error TooEarly(uint256 availableAt, uint256 nowSeconds);
    /// @notice The token moved `received` instead of `expected`: fee-taking tokens are not accepted.
    error WrongAmountReceived(uint256 expected, uint256 received);
}
