// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IGatewayRegistry} from "./interfaces/IGatewayRegistry.sol";
import {Endpoints} from "./libraries/Endpoints.sol";
import {GatewayRegistration, TypedData} from "./libraries/TypedData.sol";
import {PeerRegistry} from "./PeerRegistry.sol";

/// @title GatewayRegistry
/// @dev Storage layout:
///   0  nonces       PeerRegistry
///   1  peer owners  PeerRegistry
///   2  gateways     gateway → peer x; peer y; registered at; endpoints
contract GatewayRegistry is IGatewayRegistry, PeerRegistry {
    using TypedData for GatewayRegistration;

    uint8 private constant ROLE_GATEWAY = 4;

    mapping(address gateway => Gateway) private _gateways;

    /// @param settlement Future address of Settlement, which compares at its own construction.
    constructor(address settlement) PeerRegistry(settlement, ROLE_GATEWAY) {}

    /// @inheritdoc IGatewayRegistry
    function register(
        bytes32 peerX,
        bytes32 peerY,
        string[] calldata endpoints,
        bytes calldata peerSignature
    ) external {
        _register(msg.sender, peerX, peerY, endpoints, peerSignature);
    }

    /// @inheritdoc IGatewayRegistry
    function registerBySignature(
        GatewayRegistration calldata registration,
        bytes calldata signature,
        bytes calldata peerSignature
    ) external {
        address gateway = registration.gateway;
        _checkRelayed(gateway, registration.nonce, registration.deadlineMs, registration.hash(), signature);
        _register(gateway, registration.peerX, registration.peerY, registration.endpoints, peerSignature);
    }

    /// @inheritdoc IGatewayRegistry
    function gatewayOf(address gateway) external view returns (Gateway memory) {
        return _gateways[gateway];
    }

    function _register(
        address gateway,
        bytes32 peerX,
        bytes32 peerY,
        string[] calldata endpoints,
        bytes calldata peerSignature
    ) private {
        Endpoints.check(endpoints);
        Gateway storage entry = _gateways[gateway];
        _bindPeer(gateway, entry.peerX, entry.peerY, peerX, peerY, peerSignature);
        (entry.peerX, entry.peerY) = (peerX, peerY);
        if (entry.registeredAt == 0) entry.registeredAt = uint40(block.timestamp);
        entry.endpoints = endpoints;
        emit GatewayRegistered(gateway, peerX, peerY, endpoints);
    }
}
