// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title What nodes have earned
/// @notice Batches credit nodes; credit leaves only to the payout wallet that the node registry names.
interface INodeCredits {
    /// @notice `amount` of `node`'s credit was paid to its payout wallet.
    event CreditPaid(address indexed node, address indexed payout, uint128 amount);
    /// @notice The token refused to pay `payout`; the credit stands as before.
    event PayoutFailed(address indexed node, address indexed payout, uint128 amount);

    error NoCredit(address node);
    error NodeNotRegistered(address node);

    /// @notice Pays the caller's whole credit to its payout wallet; reverts if that can't be done.
    function withdrawCredit() external returns (uint128 amount);

    /// @notice Pays the credit of each of `nodes` to its payout wallet; anyone may call. Nodes without
    /// credit or registration are passed over, and a wallet that the token refuses keeps nobody else
    /// from being paid: its node's credit stands and {PayoutFailed} says so.
    function payout(address[] calldata nodes) external;

    /// @notice Credit of `node` now, and the sum of all it was ever credited.
    function creditOf(address node) external view returns (uint128 credit, uint128 lifetime);
}
