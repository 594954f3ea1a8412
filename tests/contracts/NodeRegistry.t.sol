// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IPeerRegistry} from "../../contracts/interfaces/IPeerRegistry.sol";
import {NodeRegistration, TypedData} from "../../contracts/libraries/TypedData.sol";
import {Network} from "./support/Network.sol";
import {Peer, Peers} from "./support/Peers.sol";

/// @dev Registration by own transaction and relayed; payout changes; peers.
contract NodeRegistryTest is Network {
    uint256 private constant NODE_KEY = 0x40de;
    address private immutable NODE = vm.addr(NODE_KEY);
    address private constant WALLET = address(0xbee1);
    address private constant NEXT_WALLET = address(0xbee2);

    function setUp() external {
        deploy();
    }

    function test_ANodeRegistersItself() external {
        Peer memory peer = Peers.get(0);
        bytes memory binding = bindingSignature(peer, NODE, 2);
        vm.expectEmit(address(nodeRegistry));
        emit INodeRegistry.NodeRegistered(NODE, peer.x, peer.y);
        vm.expectEmit(address(nodeRegistry));
        emit INodeRegistry.PayoutSet(NODE, WALLET, uint40(block.timestamp));
        vm.prank(NODE);
        nodeRegistry.register(WALLET, peer.x, peer.y, binding);
        INodeRegistry.Node memory node = nodeRegistry.nodeOf(NODE);
        eq(node.payout, WALLET);
        eq(node.peerX, peer.x);
        eq(node.peerY, peer.y);
        eq(node.registeredAt, block.timestamp);
        eq(nodeRegistry.payoutOf(NODE), WALLET);
        eq(nodeRegistry.ownerOfPeer(peer.x, peer.y), NODE);
        eq(nodeRegistry.payoutOf(STRANGER), address(0));
    }

    function test_AnyoneMayRelayARegistration() external {
        NodeRegistration memory registration = _registration(0);
        _relay(registration);
        eq(nodeRegistry.payoutOf(NODE), WALLET);
        eq(nodeRegistry.nonceOf(NODE), 1);
    }

    function test_ARelayedRegistrationWorksOnce() external {
        NodeRegistration memory registration = _registration(0);
        _relay(registration);
        _refused(registration, abi.encodeWithSelector(IPeerRegistry.WrongNonce.selector, NODE, 1, 0));
        registration.nonce = 2;
        _refused(registration, abi.encodeWithSelector(IPeerRegistry.WrongNonce.selector, NODE, 1, 2));
    }

    function test_AnOwnRegistrationOutdatesSignedOnes() external {
        NodeRegistration memory registration = _registration(0);
        _register(0, WALLET);
        _refused(registration, abi.encodeWithSelector(IPeerRegistry.WrongNonce.selector, NODE, 1, 0));
    }

    function test_ARelayedRegistrationHasADeadline() external {
        NodeRegistration memory registration = _registration(0);
        registration.deadlineMs = uint64(block.timestamp * 1000 - 1);
        _refused(
            registration,
            abi.encodeWithSelector(
                IPeerRegistry.DeadlinePassed.selector,
                registration.deadlineMs,
                block.timestamp * 1000
            )
        );
        registration.deadlineMs += 1;
        _relay(registration);
    }

    function test_OnlyTheNodeSignsItsRegistration() external {
        NodeRegistration memory registration = _registration(0);
        bytes memory signed = signature(0xbad, _digest(registration));
        bytes memory binding = bindingSignature(Peers.get(0), NODE, 2);
        reverts(abi.encodeWithSelector(IPeerRegistry.WrongOwnerSignature.selector, NODE, vm.addr(0xbad)));
        nodeRegistry.registerBySignature(registration, signed, binding);
    }

    function test_ThePeerMustSignForThisOwnerAndRole() external {
        Peer memory peer = Peers.get(0);
        _refusedBinding(peer, bindingSignature(Peers.get(1), NODE, 2));
        _refusedBinding(peer, bindingSignature(peer, STRANGER, 2));
        _refusedBinding(peer, bindingSignature(peer, NODE, 4));
    }

    function test_ARelayedRegistrationNeedsThePeersSignatureToo() external {
        NodeRegistration memory registration = _registration(0);
        bytes memory signed = signature(NODE_KEY, _digest(registration));
        (Peer memory peer, Peer memory other) = (Peers.get(0), Peers.get(1));
        bytes32 digest = _bindingDigest(NODE, peer.x, peer.y);
        reverts(_wrongPeer(peer.x, peer.y, vm.addr(other.key)));
        nodeRegistry.registerBySignature(registration, signed, signature(other.key, digest));
    }

    /// @dev The point registered is that of the key that signed, so the peer id that follows from it is too.
    function test_ThePointIsThatOfThePeerKey() external {
        Peer memory peer = Peers.get(0);
        bytes32 otherY = bytes32(~uint256(peer.y)); // of other parity: another peer id
        bytes memory binding = signature(peer.key, _bindingDigest(NODE, peer.x, otherY));
        bytes memory refusal = _wrongPeer(peer.x, otherY, vm.addr(peer.key));
        reverts(refusal);
        vm.prank(NODE);
        nodeRegistry.register(WALLET, peer.x, otherY, binding);

        NodeRegistration memory registration = _registration(0);
        registration.peerY = otherY;
        bytes memory signed = signature(NODE_KEY, _digest(registration));
        reverts(refusal);
        nodeRegistry.registerBySignature(registration, signed, binding);
    }

    function test_APeerBelongsToOneNode() external {
        _register(0, WALLET);
        Peer memory peer = Peers.get(0);
        bytes memory binding = bindingSignature(peer, STRANGER, 2);
        reverts(abi.encodeWithSelector(IPeerRegistry.PeerTaken.selector, peer.x, peer.y, NODE));
        vm.prank(STRANGER);
        nodeRegistry.register(WALLET, peer.x, peer.y, binding);
    }

    function test_ANewPeerCountsAtOnceAndFreesTheOld() external {
        _register(0, WALLET);
        _register(1, WALLET);
        (Peer memory old, Peer memory present) = (Peers.get(0), Peers.get(1));
        eq(nodeRegistry.ownerOfPeer(old.x, old.y), address(0));
        eq(nodeRegistry.ownerOfPeer(present.x, present.y), NODE);
        eq(nodeRegistry.nodeOf(NODE).peerX, present.x);
        bytes memory binding = bindingSignature(old, STRANGER, 2);
        vm.prank(STRANGER);
        nodeRegistry.register(WALLET, old.x, old.y, binding);
        eq(nodeRegistry.ownerOfPeer(old.x, old.y), STRANGER);
    }

    function test_ANewPayoutWalletTakesTheDelay() external {
        _register(0, WALLET);
        uint40 effectiveAt = uint40(block.timestamp) + PAYOUT_DELAY;
        Peer memory peer = Peers.get(0);
        bytes memory binding = bindingSignature(peer, NODE, 2);
        vm.expectEmit(address(nodeRegistry));
        emit INodeRegistry.PayoutSet(NODE, NEXT_WALLET, effectiveAt);
        vm.prank(NODE);
        nodeRegistry.register(NEXT_WALLET, peer.x, peer.y, binding);
        INodeRegistry.Node memory node = nodeRegistry.nodeOf(NODE);
        eq(node.payout, WALLET);
        eq(node.nextPayout, NEXT_WALLET);
        eq(node.payoutChangesAt, effectiveAt);
        vm.warp(effectiveAt - 1);
        eq(nodeRegistry.payoutOf(NODE), WALLET);
        vm.warp(effectiveAt);
        eq(nodeRegistry.payoutOf(NODE), NEXT_WALLET);
        node = nodeRegistry.nodeOf(NODE);
        eq(node.payout, NEXT_WALLET);
        eq(node.nextPayout, address(0));
        eq(node.payoutChangesAt, 0);
    }

    function test_RepeatingTheWaitingWalletKeepsItsTime() external {
        _register(0, WALLET);
        _register(0, NEXT_WALLET);
        uint40 changesAt = nodeRegistry.nodeOf(NODE).payoutChangesAt;
        vm.warp(block.timestamp + 1 hours);
        _register(1, NEXT_WALLET);
        eq(nodeRegistry.nodeOf(NODE).payoutChangesAt, changesAt);
    }

    function test_NamingThePresentWalletCancelsTheChange() external {
        _register(0, WALLET);
        _register(0, NEXT_WALLET);
        _register(0, WALLET);
        vm.warp(block.timestamp + PAYOUT_DELAY);
        eq(nodeRegistry.payoutOf(NODE), WALLET);
        eq(nodeRegistry.nodeOf(NODE).payoutChangesAt, 0);
    }

    function test_AMaturedWalletIsThePresentOneForTheNextChange() external {
        _register(0, WALLET);
        _register(0, NEXT_WALLET);
        vm.warp(block.timestamp + PAYOUT_DELAY);
        _register(0, WALLET); // back again: a change like any other
        eq(nodeRegistry.payoutOf(NODE), NEXT_WALLET);
        vm.warp(block.timestamp + PAYOUT_DELAY);
        eq(nodeRegistry.payoutOf(NODE), WALLET);
        eq(nodeRegistry.nodeOf(NODE).registeredAt, block.timestamp - 2 * PAYOUT_DELAY);
    }

    function test_ThePayoutWalletIsNotZero() external {
        Peer memory peer = Peers.get(0);
        bytes memory binding = bindingSignature(peer, NODE, 2);
        reverts(abi.encodeWithSelector(INodeRegistry.ZeroPayout.selector, NODE));
        vm.prank(NODE);
        nodeRegistry.register(address(0), peer.x, peer.y, binding);
    }

    function _register(uint256 peerNumber, address wallet) private {
        Peer memory peer = Peers.get(peerNumber);
        bytes memory binding = bindingSignature(peer, NODE, 2);
        vm.prank(NODE);
        nodeRegistry.register(wallet, peer.x, peer.y, binding);
    }

    function _registration(uint64 nonce) private view returns (NodeRegistration memory) {
        Peer memory peer = Peers.get(0);
        return NodeRegistration(NODE, WALLET, peer.x, peer.y, nonce, uint64(block.timestamp * 1000 + 1_000));
    }

    function _digest(NodeRegistration memory registration) private view returns (bytes32) {
        return TypedData.digest(settlement.domainSeparator(), TypedData.hash(registration));
    }

    function _bindingDigest(address owner, bytes32 x, bytes32 y) private view returns (bytes32) {
        return TypedData.digest(settlement.domainSeparator(), TypedData.hashPeerBinding(owner, 2, x, y));
    }

    function _wrongPeer(bytes32 x, bytes32 y, address signer) private pure returns (bytes memory) {
        address peer = address(uint160(uint256(keccak256(bytes.concat(x, y)))));
        return abi.encodeWithSelector(IPeerRegistry.WrongPeerSignature.selector, peer, signer);
    }

    function _relay(NodeRegistration memory registration) private {
        bytes memory signed = signature(NODE_KEY, _digest(registration));
        bytes memory binding = bindingSignature(Peers.get(0), NODE, 2);
        vm.prank(STRANGER);
        nodeRegistry.registerBySignature(registration, signed, binding);
    }

    function _refused(NodeRegistration memory registration, bytes memory reason) private {
        bytes memory signed = signature(NODE_KEY, _digest(registration));
        bytes memory binding = bindingSignature(Peers.get(0), NODE, 2);
        reverts(reason);
        nodeRegistry.registerBySignature(registration, signed, binding);
    }

    function _refusedBinding(Peer memory peer, bytes memory binding) private {
        vm.prank(NODE);
        try nodeRegistry.register(WALLET, peer.x, peer.y, binding) {
            check(false);
        } catch (bytes memory reason) {
            eq(bytes32(bytes4(reason)), bytes32(IPeerRegistry.WrongPeerSignature.selector));
        }
    }
}
