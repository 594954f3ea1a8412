// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ISettlementBase} from "./ISettlementBase.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Bonds that nodes lose for objective faults
/// @notice A bond is optional. While one exists it has one funder, who alone adds to it and takes it back,
/// the whole of it and after `unbondingDelay`. A fault takes all of it, also while it is being taken back.
///
/// A funder vouches for the node key, whatever the key has signed before: whoever holds that key can burn
/// the bond at any time and collect the reporter's share of it.
///
/// A bond does not prove that the node is good, nor that two funders are two people.
interface INodeBonds is ISettlementBase {
    /// @notice `funder` may start the next bond of `node`; zero: only the node and its payout wallet may.
    event FunderAllowed(address indexed node, address indexed funder);
    /// @notice `funder` added `amount` to the bond. A first amount starts the bond and ends an allowance.
    event Bonded(address indexed node, address indexed funder, uint96 amount);
    /// @notice The bond can be withdrawn from `unbondingAt` on. 0: the request was cancelled.
    event UnbondingRequested(address indexed node, uint40 unbondingAt);
    /// @notice The whole bond was paid to `to` and is over.
    event BondWithdrawn(address indexed node, address indexed to, uint96 amount);
    /// @notice The whole bond went to the contract that decides faults and is over.
    event BondSlashed(address indexed node, address indexed funder, uint96 amount);

    error NodeNotRegistered(address node);
    /// @notice `caller` is neither the node nor its payout wallet.
    error NotNodeOrPayout(address node, address caller);
    /// @notice `caller` is neither the node, nor its payout wallet, nor allowed by one of them.
    error NotAllowedToFund(address node, address caller);
    /// @notice The bond belongs to `funder`; zero: there is no bond.
    error NotFunder(address node, address funder, address caller);
    /// @notice The bond is being taken back; cancel that first.
    error UnbondingPending(address node, uint40 unbondingAt);
    error NotFaults(address caller);

    /// @notice Lets `funder` start the next bond of `node`, in place of anyone allowed before; zero: nobody.
    /// By the node or its payout wallet in force. Does not touch a bond that exists.
    function allowFunder(address node, address funder) external;

    /// @notice Takes `amount` from the caller and adds it to the bond of `node`. Starting a bond is for the
    /// node, its payout wallet in force and the allowed funder; adding to it for its funder.
    function bond(address node, uint96 amount) external;

    /// @notice Starts taking the whole bond back, by its funder; or sending it back, by the node or its payout
    /// wallet in force, so that nobody keeps the place against their will.
    function requestUnbonding(address node) external;

    /// @notice Ends a request, by a funder who may start a bond.
    function cancelUnbonding(address node) external;

    /// @notice Pays the whole bond to `to` once the delay is over, by its funder; or to its funder, by the node
    /// or its payout wallet in force.
    function withdrawBond(address node, address to) external returns (uint96 amount);

    /// @notice Pays the whole bond to the caller, by the contract that decides objective faults. Without a
    /// bond nothing happens.
    function slashBond(address node) external returns (uint96 amount);

    /// @notice Bond of `node`; all zero if there is none. It can be withdrawn from `unbondingAt` on; 0: not
    /// asked for.
    function bondOf(address node) external view returns (uint96 amount, address funder, uint40 unbondingAt);

    /// @notice Who may start the next bond of `node` beside the node and its payout wallet; zero: nobody.
    function allowedFunderOf(address node) external view returns (address);

    /// @notice Seconds from a request to the withdrawal.
    function unbondingDelay() external view returns (uint32);

    /// @notice The contract that decides objective faults.
    function faults() external view returns (address);

    /// @notice What bonds are made of: the settlement token.
    function token() external view returns (IERC20);
}
