// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title What node and gateway registries have in common: a peer key bound to its owner
/// @notice The point of the peer key is on chain, so its libp2p peer id follows from it. Both keys sign:
/// the owner the registration, the peer a `PeerBinding`. A peer belongs to one owner of a registry.
interface IPeerRegistry {
    /// @notice `signer` signed the registration instead of its owner.
    error WrongOwnerSignature(address owner, address signer);
    /// @notice `signer` signed the binding instead of the peer key, whose address is `peer`.
    error WrongPeerSignature(address peer, address signer);
    error PeerTaken(bytes32 peerX, bytes32 peerY, address owner);
    error WrongNonce(address owner, uint64 expected, uint64 given);
    error DeadlinePassed(uint64 deadlineMs, uint256 nowMs);

    /// @notice Nonce that the next relayed registration of `owner` must carry. Every registration, also
    /// one by own transaction, raises it.
    function nonceOf(address owner) external view returns (uint64);

    /// @notice Owner of the peer with this point; zero if none.
    function ownerOfPeer(bytes32 peerX, bytes32 peerY) external view returns (address);

    function domainSeparator() external view returns (bytes32);
}
