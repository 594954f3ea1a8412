// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {NodeRegistration, TypedData} from "./libraries/TypedData.sol";
import {PeerRegistry} from "./PeerRegistry.sol";

/// @title NodeRegistry
/// @dev Storage layout:
///   0  nonces       PeerRegistry
///   1  peer owners  PeerRegistry
///   2  nodes        node → payout; next payout, changes at, registered at; peer x; peer y
contract NodeRegistry is INodeRegistry, PeerRegistry {
    using TypedData for NodeRegistration;

    uint8 private constant ROLE_NODE = 2;

    /// @inheritdoc INodeRegistry
    uint32 public immutable payoutDelay;

    mapping(address node => Node) private _nodes;

    /// @param settlement Future address of Settlement, which compares at its own construction.
    /// @param payoutDelay_ Seconds from a change of a payout wallet to its effect.
    constructor(address settlement, uint32 payoutDelay_) PeerRegistry(settlement, ROLE_NODE) {
        payoutDelay = payoutDelay_;
    }

    /// @inheritdoc INodeRegistry
    function register(address payout, bytes32 peerX, bytes32 peerY, bytes calldata peerSignature) external {
        _register(msg.sender, payout, peerX, peerY, peerSignature);
    }

    /// @inheritdoc INodeRegistry
    function registerBySignature(
        NodeRegistration calldata registration,
        bytes calldata signature,
        bytes calldata peerSignature
    ) external {
        address node = registration.node;
        _checkRelayed(node, registration.nonce, registration.deadlineMs, registration.hash(), signature);
        _register(node, registration.payout, registration.peerX, registration.peerY, peerSignature);
    }

    /// @inheritdoc INodeRegistry
    function payoutOf(address node) external view returns (address) {
        Node storage entry = _nodes[node];
        return _payoutChanged(entry) ? entry.nextPayout : entry.payout;
    }

    /// @inheritdoc INodeRegistry
    function nodeOf(address node) external view returns (Node memory entry) {
        entry = _nodes[node];
        if (_payoutChanged(_nodes[node])) {
            (entry.payout, entry.nextPayout, entry.payoutChangesAt) = (entry.nextPayout, address(0), 0);
        }
    }

    function _register(
        address node,
        address payout,
        bytes32 peerX,
        bytes32 peerY,
        bytes calldata peerSignature
    ) private {
        if (payout == address(0)) revert ZeroPayout(node);
        Node storage entry = _nodes[node];
        _bindPeer(node, entry.peerX, entry.peerY, peerX, peerY, peerSignature);
        (entry.peerX, entry.peerY) = (peerX, peerY);
        emit NodeRegistered(node, peerX, peerY);
        _setPayout(node, entry, payout);
    }

    /// @dev The first wallet counts at once, a change after the delay. Naming the wallet that waits keeps
    /// its time, naming the one in force cancels the change.
    function _setPayout(address node, Node storage entry, address payout) private {
        uint40 nowSeconds = uint40(block.timestamp);
        if (_payoutChanged(entry)) {
            (entry.payout, entry.nextPayout, entry.payoutChangesAt) = (entry.nextPayout, address(0), 0);
        }
        if (entry.registeredAt == 0) {
            (entry.payout, entry.registeredAt) = (payout, nowSeconds);
            emit PayoutSet(node, payout, nowSeconds);
        } else if (payout == entry.payout) {
            if (entry.payoutChangesAt == 0) return;
            (entry.nextPayout, entry.payoutChangesAt) = (address(0), 0);
            emit PayoutSet(node, payout, nowSeconds);
        } else if (payout != entry.nextPayout) {
            (entry.nextPayout, entry.payoutChangesAt) = (payout, nowSeconds + payoutDelay);
            emit PayoutSet(node, payout, entry.payoutChangesAt);
        }
    }

    function _payoutChanged(Node storage entry) private view returns (bool) {
        return entry.payoutChangesAt != 0 && block.timestamp >= entry.payoutChangesAt;
    }
}
