// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {NodeRegistration, TypedData} from "./libraries/TypedData.sol";
import {PeerRegistry} from "./PeerRegistry.sol";
import {NodeBonds} from "./registry/NodeBonds.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title NodeRegistry
/// @dev Storage layout:
///   0  nonces           PeerRegistry
///   1  peer owners      PeerRegistry
///   2  owed             sum of all bonds                                                 SettlementBase
///   3  bonds            node → amount, funder; unbonding at                              NodeBonds
///   4  allowed funders  node → funder                                                    NodeBonds
///   5  nodes            node → payout; next payout, changes at, registered at; peer x; peer y
contract NodeRegistry is INodeRegistry, PeerRegistry, NodeBonds {
    using TypedData for NodeRegistration;

    uint8 private constant ROLE_NODE = 2;

    /// @inheritdoc INodeRegistry
    uint32 public immutable payoutDelay;

    mapping(address node => Node) private _nodes;

    /// @param settlement Future address of Settlement, which compares at its own construction.
    /// @param payoutDelay_ Seconds from a change of a payout wallet to its effect.
    /// @param token_ The settlement token, which bonds are made of.
    /// @param faults_ Future address of ObjectiveFaults, which compares at its own construction.
    /// @param unbondingDelay_ Seconds from asking for a bond back to having it; Settlement compares it.
    constructor(
        address settlement,
        uint32 payoutDelay_,
        IERC20 token_,
        address faults_,
        uint32 unbondingDelay_
    ) PeerRegistry(settlement, ROLE_NODE) NodeBonds(token_, faults_, unbondingDelay_) {
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
        return _payoutOf(node);
    }

    /// @inheritdoc INodeRegistry
    function nodeOf(address node) external view returns (Node memory entry) {
        entry = _nodes[node];
        if (_payoutChanged(_nodes[node])) {
            (entry.payout, entry.nextPayout, entry.payoutChangesAt) = (entry.nextPayout, address(0), 0);
        }
    }

    /// @inheritdoc NodeBonds
    function _payoutOf(address node) internal view override returns (address) {
        Node storage entry = _nodes[node];
        return _payoutChanged(entry) ? entry.nextPayout : entry.payout;
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
