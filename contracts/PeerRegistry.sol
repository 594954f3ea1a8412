// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IPeerRegistry} from "./interfaces/IPeerRegistry.sol";
import {TypedData} from "./libraries/TypedData.sol";

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title Peers bound to their owners
/// @dev Base of the node and the gateway registry; storage slots 0 (nonces) and 1 (peer owners) of both.
abstract contract PeerRegistry is IPeerRegistry {
    /// @inheritdoc IPeerRegistry
    bytes32 public immutable domainSeparator;
    /// @dev Role that the registry's peer bindings name.
    uint8 private immutable ROLE;

    mapping(address owner => uint64) private _nonces;
    mapping(bytes32 peerHash => address owner) private _peerOwners;

    constructor(address settlement, uint8 role) {
        domainSeparator = TypedData.domainSeparator(settlement);
        ROLE = role;
    }

    /// @inheritdoc IPeerRegistry
    function nonceOf(address owner) external view returns (uint64) {
        return _nonces[owner];
    }

    /// @inheritdoc IPeerRegistry
    function ownerOfPeer(bytes32 peerX, bytes32 peerY) external view returns (address) {
        return _peerOwners[_peerHash(peerX, peerY)];
    }

    /// @dev Reverts unless the owner signed this registration and meant it for now.
    function _checkRelayed(
        address owner,
        uint64 nonce,
        uint64 deadlineMs,
        bytes32 structHash,
        bytes calldata signature
    ) internal view {
        uint256 nowMs = block.timestamp * 1000;
        if (nowMs > deadlineMs) revert DeadlinePassed(deadlineMs, nowMs);
        if (nonce != _nonces[owner]) revert WrongNonce(owner, _nonces[owner], nonce);
        address signer = ECDSA.recoverCalldata(TypedData.digest(domainSeparator, structHash), signature);
        if (signer != owner) revert WrongOwnerSignature(owner, signer);
    }

    /// @dev Gives the peer (`peerX`, `peerY`) to `owner` in place of (`oldX`, `oldY`), zeros if none, and
    /// spends the owner's nonce, so that no older signed registration can undo this one.
    function _bindPeer(
        address owner,
        bytes32 oldX,
        bytes32 oldY,
        bytes32 peerX,
        bytes32 peerY,
        bytes calldata peerSignature
    ) internal {
        _checkBinding(owner, peerX, peerY, peerSignature);
        ++_nonces[owner];
        bytes32 peerHash = _peerHash(peerX, peerY);
        address holder = _peerOwners[peerHash];
        if (holder == owner) return;
        if (holder != address(0)) revert PeerTaken(peerX, peerY, holder);
        delete _peerOwners[_peerHash(oldX, oldY)];
        _peerOwners[peerHash] = owner;
    }

    /// @dev The peer key's address follows from its point, so the signature also proves the point.
    function _checkBinding(
        address owner,
        bytes32 peerX,
        bytes32 peerY,
        bytes calldata peerSignature
    ) private view {
        bytes32 structHash = TypedData.hashPeerBinding(owner, ROLE, peerX, peerY);
        address signer = ECDSA.recoverCalldata(TypedData.digest(domainSeparator, structHash), peerSignature);
        address peer = address(uint160(uint256(_peerHash(peerX, peerY))));
        if (signer != peer) revert WrongPeerSignature(peer, signer);
    }

    function _peerHash(bytes32 peerX, bytes32 peerY) private pure returns (bytes32) {
        return keccak256(bytes.concat(peerX, peerY));
    }
}
