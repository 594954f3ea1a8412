// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title What all contracts that hold tokens share
/// @notice The token should move exactly what it is told to and change no balance by itself. Where it takes
/// tokens away all the same, every claim is paid by the same share: {owed} then exceeds the tokens held, the
/// amounts in events are the claims that ended, and the token's own transfers are what arrived. What it
/// gives without being told belongs to nobody.
interface ISettlementBase {
    error ZeroAmount();
    error ZeroAddress();
    error UnknownLog(bytes32 logId);
    /// @notice No withdrawal is pending.
    error NothingRequested();
    /// @notice The delay ends at `availableAt`.
    error TooEarly(uint256 availableAt, uint256 nowSeconds);
    /// @notice The token moved `received` instead of `expected`: fee-taking tokens are not accepted.
    error WrongAmountReceived(uint256 expected, uint256 received);
    /// @notice The token took tokens away; nothing is taken in until they are back.
    error TokensMissing(uint256 owed, uint256 held);

    /// @notice Sum of all claims on the tokens held here. Says nothing of whose they are.
    function owed() external view returns (uint256);
}
