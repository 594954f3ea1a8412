// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {
    Checkpoint,
    Completion,
    Receipt,
    Segment,
    TypedData
} from "../../../contracts/libraries/TypedData.sol";
import {Network} from "./Network.sol";
import {Peer, Peers} from "./Peers.sol";

/// @dev A bonded node, a log with a reserve, and what they sign.
abstract contract Evidence is Network {
    uint256 internal constant NODE_KEY = 0x40de;
    uint96 internal constant BOND = 1_005;
    uint96 internal constant RESERVE = 2_009;
    /// @dev Order of secp256k1.
    uint256 internal constant ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    address internal immutable NODE = vm.addr(NODE_KEY);
    address internal constant REPORTER = address(0x4e90);

    function prepare() internal {
        registerKey(NODE, 0);
        bond(NODE, BOND);
        fundReserve(RESERVE);
    }

    function registerKey(address node, uint256 peerNumber) internal {
        Peer memory peer = Peers.get(peerNumber);
        bytes memory binding = bindingSignature(peer, node, 2);
        vm.prank(node);
        nodeRegistry.register(node, peer.x, peer.y, binding);
    }

    function bond(address node, uint96 amount) internal {
        token.mint(node, amount);
        vm.startPrank(node);
        token.approve(address(nodeRegistry), amount);
        nodeRegistry.bond(node, amount);
        vm.stopPrank();
    }

    function bondOf(address node) internal view returns (uint96 amount) {
        (amount, , ) = nodeRegistry.bondOf(node);
    }

    function reserveOf(bytes32 log) internal view returns (uint96) {
        return settlement.logStateOf(log).reserve;
    }

    /// @dev The one completion that `node` makes for `award`, a pure function of both.
    function completion(address node, bytes32 award) internal pure returns (Completion memory made) {
        bytes32 seed = keccak256(abi.encode(node, award));
        made.awardDigest = award;
        made.node = node;
        made.fingerprint = keccak256("model");
        made.segmentCommitment = keccak256(abi.encode("segment", seed));
        made.responseCommitment = keccak256(abi.encode("response", seed));
        made.endByte = uint16(uint256(seed));
        made.promptTokens = 12;
        made.outputTokens = uint16(uint256(seed) >> 16);
        made.acks = 1 + made.outputTokens / 32;
        made.lastPreimage = keccak256(abi.encode("preimage", seed));
        made.finish = 1;
        made.startedMs = 1_800_000_000_000;
        made.firstTokenMs = made.startedMs + 200;
        made.finishedMs = made.startedMs + 2_000;
    }

    function checkpoint(
        bytes32 log,
        uint64 epoch_,
        uint64 size,
        bytes32 root
    ) internal view returns (Checkpoint memory) {
        return Checkpoint(log, epoch_, size, root, uint64(block.timestamp * 1000));
    }

    /// @dev A receipt of the fixture's log whose segments have these amounts.
    function receipt(uint96 total, uint96[] memory amounts) internal view returns (Receipt memory made) {
        made.head.logId = logId;
        made.head.epoch = epoch;
        made.head.jobId = bytes16(keccak256(abi.encode(total, amounts)));
        made.head.payer = address(0xa000);
        made.head.status = 1;
        made.head.total = total;
        made.head.payerCounter = 1;
        made.head.payerTotal = total;
        made.modelKey = keccak256("model");
        made.segments = new Segment[](amounts.length);
        for (uint256 i = 0; i < amounts.length; ++i) {
            made.segments[i].node = NODE;
            made.segments[i].rank = uint8(i + 1);
            made.segments[i].amount = amounts[i];
        }
    }

    function amountsOf(uint96 first, uint96 second) internal pure returns (uint96[] memory amounts) {
        amounts = new uint96[](2);
        (amounts[0], amounts[1]) = (first, second);
    }

    function digestOf(Completion memory message) internal view returns (bytes32) {
        return TypedData.digest(settlement.domainSeparator(), TypedData.hash(message));
    }

    function digestOf(Checkpoint memory message) internal view returns (bytes32) {
        return TypedData.digest(settlement.domainSeparator(), TypedData.hash(message));
    }

    function digestOf(Receipt memory message) internal view returns (bytes32) {
        return TypedData.digest(settlement.domainSeparator(), TypedData.hash(message));
    }

    function signed(uint256 key, Completion memory message) internal view returns (bytes memory) {
        return signature(key, digestOf(message));
    }

    function signed(uint256 key, Checkpoint memory message) internal view returns (bytes memory) {
        return signature(key, digestOf(message));
    }

    function signed(uint256 key, Receipt memory message) internal view returns (bytes memory) {
        return signature(key, digestOf(message));
    }

    function report(Completion memory first, Completion memory second, uint256 key) internal {
        (bytes memory one, bytes memory two) = (signed(key, first), signed(key, second));
        faults.reportCompletions(first, one, second, two, REPORTER);
    }

    /// @dev Reports what is a fault beyond doubt: two segments for one award.
    function reportTwoCompletions(bytes32 award) internal {
        Completion memory second = completion(NODE, award);
        second.outputTokens += 1;
        report(completion(NODE, award), second, NODE_KEY);
    }

    function report(
        Checkpoint memory first,
        uint256 firstKey,
        Checkpoint memory second,
        uint256 secondKey
    ) internal {
        (bytes memory one, bytes memory two) = (signed(firstKey, first), signed(secondKey, second));
        faults.reportCheckpoints(first, one, second, two, REPORTER);
    }

    /// @dev Reports what is a fault beyond doubt: two roots of the first epoch at `size`.
    function reportTwoRoots(uint64 size) internal {
        report(
            checkpoint(logId, 1, size, "one root"),
            ENCLAVE_KEY,
            checkpoint(logId, 1, size, "another root"),
            ENCLAVE_KEY
        );
    }

    /// @dev Another valid signature over `digest`, made with peer 0's key as its nonce instead of the
    /// deterministic one: what a signer may give that signs anew after a crash.
    function signedAnew(uint256 key, bytes32 digest) internal view returns (bytes memory) {
        Peer memory nonce = Peers.get(0);
        uint256 r = uint256(nonce.x);
        uint256 s = mulmod(_inverse(nonce.key), addmod(uint256(digest), mulmod(r, key, ORDER), ORDER), ORDER);
        bool odd = uint256(nonce.y) & 1 == 1;
        if (s > ORDER / 2) (s, odd) = (ORDER - s, !odd);
        return abi.encodePacked(r, s, uint8(odd ? 28 : 27));
    }

    /// @dev The same signature in its upper form: s negated, v flipped.
    function malleated(bytes memory signature_) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = parts(signature_);
        return abi.encodePacked(r, ORDER - uint256(s), uint8(55 - v));
    }

    function parts(bytes memory signature_) internal pure returns (uint8 v, bytes32 r, bytes32 s) {
        assembly ("memory-safe") {
            r := mload(add(signature_, 32))
            s := mload(add(signature_, 64))
            v := byte(0, mload(add(signature_, 96)))
        }
    }

    /// @dev Whom this deployment takes for the signer of `digest`.
    function signerOf(bytes32 digest, bytes memory signature_) internal pure returns (address) {
        (uint8 v, bytes32 r, bytes32 s) = parts(signature_);
        return ecrecover(digest, v, r, s);
    }

    function _inverse(uint256 value) private view returns (uint256 inverse) {
        bytes memory input = abi.encode(32, 32, 32, value, ORDER - 2, ORDER);
        (bool success, bytes memory result) = address(5).staticcall(input);
        check(success);
        inverse = abi.decode(result, (uint256));
    }
}
