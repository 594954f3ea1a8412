// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Faults that a contract can decide from signatures alone
interface IObjectiveFaults {
    /// @notice The Settlement whose reserves this contract may slash.
    function settlement() external view returns (address);

    /// @notice EIP-712 separator of the whole deployment.
    function domainSeparator() external view returns (bytes32);
}
