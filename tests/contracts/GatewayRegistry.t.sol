// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IGatewayRegistry} from "../../contracts/interfaces/IGatewayRegistry.sol";
import {IPeerRegistry} from "../../contracts/interfaces/IPeerRegistry.sol";
import {Endpoints} from "../../contracts/libraries/Endpoints.sol";
import {GatewayRegistration, TypedData} from "../../contracts/libraries/TypedData.sol";
import {Network} from "./support/Network.sol";
import {Peer, Peers} from "./support/Peers.sol";

/// @dev What differs from nodes: endpoints and the role in the binding. The rest is tested there.
contract GatewayRegistryTest is Network {
    uint256 private constant GATEWAY_KEY = 0x6a7e;
    address private immutable GATEWAY = vm.addr(GATEWAY_KEY);

    function setUp() external {
        deploy();
    }

    function test_AGatewayRegistersAndUpdatesItself() external {
        Peer memory peer = Peers.get(0);
        bytes memory binding = bindingSignature(peer, GATEWAY, 4);
        vm.expectEmit(address(gatewayRegistry));
        emit IGatewayRegistry.GatewayRegistered(GATEWAY, peer.x, peer.y, _endpoints("https://a"));
        vm.prank(GATEWAY);
        gatewayRegistry.register(peer.x, peer.y, _endpoints("https://a"), binding);
        uint256 registeredAt = block.timestamp;
        vm.warp(block.timestamp + 1 days);
        vm.prank(GATEWAY);
        gatewayRegistry.register(peer.x, peer.y, _endpoints("https://b"), binding);
        IGatewayRegistry.Gateway memory gateway = gatewayRegistry.gatewayOf(GATEWAY);
        eq(gateway.registeredAt, registeredAt);
        eq(gateway.peerX, peer.x);
        eq(gateway.peerY, peer.y);
        eq(gateway.endpoints.length, 1);
        eq(gateway.endpoints[0], "https://b");
        eq(gatewayRegistry.nonceOf(GATEWAY), 2);
    }

    function test_EndpointsAreBoundedAsALogsAre() external by(GATEWAY) {
        Peer memory peer = Peers.get(0);
        bytes memory binding = bindingSignature(peer, GATEWAY, 4);
        reverts(abi.encodeWithSelector(Endpoints.TooManyEndpoints.selector, 9, 8));
        gatewayRegistry.register(peer.x, peer.y, new string[](9), binding);
        reverts(abi.encodeWithSelector(Endpoints.EndpointLength.selector, 0, 0, 256));
        gatewayRegistry.register(peer.x, peer.y, new string[](1), binding);
        gatewayRegistry.register(peer.x, peer.y, new string[](0), binding);
    }

    function test_AnyoneMayRelayARegistrationOnce() external {
        Peer memory peer = Peers.get(0);
        GatewayRegistration memory registration = GatewayRegistration(
            GATEWAY,
            peer.x,
            peer.y,
            0,
            uint64(block.timestamp * 1000),
            _endpoints("https://a")
        );
        bytes32 digest = TypedData.digest(settlement.domainSeparator(), TypedData.hash(registration));
        bytes memory signed = signature(GATEWAY_KEY, digest);
        bytes memory binding = bindingSignature(peer, GATEWAY, 4);

        registration.endpoints[0] = "https://evil";
        try gatewayRegistry.registerBySignature(registration, signed, binding) {
            check(false);
        } catch (bytes memory reason) {
            eq(bytes32(bytes4(reason)), bytes32(IPeerRegistry.WrongOwnerSignature.selector));
        }
        registration.endpoints[0] = "https://a";
        vm.prank(STRANGER);
        gatewayRegistry.registerBySignature(registration, signed, binding);
        eq(gatewayRegistry.gatewayOf(GATEWAY).endpoints[0], "https://a");
        reverts(abi.encodeWithSelector(IPeerRegistry.WrongNonce.selector, GATEWAY, 1, 0));
        gatewayRegistry.registerBySignature(registration, signed, binding);
    }

    function test_ANodesBindingIsNoGatewaysBinding() external {
        Peer memory peer = Peers.get(0);
        bytes memory binding = bindingSignature(peer, GATEWAY, 2);
        vm.prank(GATEWAY);
        try gatewayRegistry.register(peer.x, peer.y, _endpoints("https://a"), binding) {
            check(false);
        } catch (bytes memory reason) {
            eq(bytes32(bytes4(reason)), bytes32(IPeerRegistry.WrongPeerSignature.selector));
        }
    }

    function _endpoints(string memory url) private pure returns (string[] memory endpoints) {
        endpoints = new string[](1);
        endpoints[0] = url;
    }
}
