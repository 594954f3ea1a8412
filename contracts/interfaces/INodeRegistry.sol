// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {NodeRegistration} from "../libraries/TypedData.sol";
import {INodeBonds} from "./INodeBonds.sol";
import {IPeerRegistry} from "./IPeerRegistry.sol";

/// @title Nodes: key, payout wallet, peer, bond
/// @notice Anyone may register a node key. Registering again updates it: a new peer at once, a new payout
/// wallet after `payoutDelay`, so that a stolen node key can't take the credit unnoticed.
interface INodeRegistry is IPeerRegistry, INodeBonds {
    /// @notice A registered node.
    /// @param payout Wallet in force now.
    /// @param nextPayout Wallet that waits; zero if none.
    /// @param payoutChangesAt Second from which `nextPayout` is in force; 0 if none waits.
    /// @param registeredAt Second of the first registration; 0: not registered.
    struct Node {
        address payout;
        address nextPayout;
        uint40 payoutChangesAt;
        uint40 registeredAt;
        bytes32 peerX;
        bytes32 peerY;
    }

    /// @notice The node is registered with this peer.
    event NodeRegistered(address indexed node, bytes32 peerX, bytes32 peerY);
    /// @notice Credit of `node` goes to `payout` from `effectiveAt` on. Replaces any waiting change.
    event PayoutSet(address indexed node, address indexed payout, uint40 effectiveAt);

    error ZeroPayout(address node);

    /// @notice Registers or updates the caller.
    /// @param peerSignature `PeerBinding(caller, 2, peerX, peerY)` by the peer key.
    function register(address payout, bytes32 peerX, bytes32 peerY, bytes calldata peerSignature) external;

    /// @notice Registers or updates `registration.node`, relayed by anyone.
    /// @param signature `NodeRegistration` by the node key.
    /// @param peerSignature `PeerBinding(node, 2, peerX, peerY)` by the peer key.
    function registerBySignature(
        NodeRegistration calldata registration,
        bytes calldata signature,
        bytes calldata peerSignature
    ) external;

    /// @notice Payout wallet of `node` in force now; zero if not registered.
    function payoutOf(address node) external view returns (address);

    /// @notice Record of `node`; all zero if not registered.
    function nodeOf(address node) external view returns (Node memory);

    /// @notice Seconds from a change of the payout wallet to its effect.
    function payoutDelay() external view returns (uint32);
}
