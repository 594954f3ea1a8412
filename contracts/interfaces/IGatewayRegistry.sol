// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {GatewayRegistration} from "../libraries/TypedData.sol";
import {IPeerRegistry} from "./IPeerRegistry.sol";

/// @title Gateways: key, peer, endpoints
/// @notice Anyone may register a gateway key; registering again updates peer and endpoints at once.
interface IGatewayRegistry is IPeerRegistry {
    /// @notice A registered gateway.
    /// @param registeredAt Second of the first registration; 0: not registered.
    /// @param endpoints URLs and multiaddrs in the gateway's order, at most 8 of at most 256 bytes; any
    /// bytes, so parse them before use.
    struct Gateway {
        bytes32 peerX;
        bytes32 peerY;
        uint40 registeredAt;
        string[] endpoints;
    }

    event GatewayRegistered(address indexed gateway, bytes32 peerX, bytes32 peerY, string[] endpoints);

    /// @notice Registers or updates the caller.
    /// @param peerSignature `PeerBinding(caller, 4, peerX, peerY)` by the peer key.
    function register(
        bytes32 peerX,
        bytes32 peerY,
        string[] calldata endpoints,
        bytes calldata peerSignature
    ) external;

    /// @notice Registers or updates `registration.gateway`, relayed by anyone.
    /// @param signature `GatewayRegistration` by the gateway key.
    /// @param peerSignature `PeerBinding(gateway, 4, peerX, peerY)` by the peer key.
    function registerBySignature(
        GatewayRegistration calldata registration,
        bytes calldata signature,
        bytes calldata peerSignature
    ) external;

    /// @notice Record of `gateway`; empty if not registered.
    function gatewayOf(address gateway) external view returns (Gateway memory);
}
