// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev One attempt of a job as a receipt states it.
struct Segment {
    address node;
    uint8 rank;
    bytes32 awardDigest;
    bytes32 completionDigest;
    bytes32 segmentCommitment;
    uint64 startByte;
    uint64 endByte;
    uint32 promptBilled;
    uint32 outputBilled;
    uint32 outputNode;
    uint32 outputGateway;
    uint32 acks;
    uint64 priceIn;
    uint64 priceOut;
    uint8 clearing;
    uint8 result;
    uint96 amount;
    uint96 fee;
    uint64 nodeCounter;
    uint128 nodeTotal;
}

/// @dev The members of a receipt before its model, in the order in which they are signed.
struct ReceiptHead {
    bytes32 logId;
    uint64 epoch;
    bytes16 jobId;
    address gateway;
    address payer;
    bytes32 account;
    bytes32 jobDigest;
    bytes32 grantDigest;
    bytes32 deliveryDigest;
    bytes32 fingerprint;
    bytes32 requestCommitment;
    bytes32 responseCommitment;
    uint8 status;
    uint8 reason;
    uint96 total;
    uint64 payerCounter;
    uint128 payerTotal;
    uint64 accountCounter;
    uint128 accountTotal;
    uint128 accountLimit;
    uint96 grantSpent;
    uint96 grantSpentDay;
    bytes32 nonce;
    bytes32 bidsRoot;
    uint32 bids;
    uint64 receivedMs;
    uint64 awardedMs;
    uint64 firstTokenMs;
    uint64 finishedMs;
    uint64 closedMs;
    bytes32 measurement;
    bytes32 parametersDigest;
    bytes32 supersedes;
}

/// @dev A receipt whose model is carried as `modelKey = keccak256(bytes(model))`, which is how
/// EIP-712 hashes the string: same digest, no string on chain.
struct Receipt {
    ReceiptHead head;
    bytes32 modelKey;
    Segment[] segments;
}

/// @dev A node's statement of the work done for one award.
struct Completion {
    bytes32 awardDigest;
    address node;
    bytes32 fingerprint;
    bytes32 segmentCommitment;
    bytes32 responseCommitment;
    uint64 startByte;
    uint64 endByte;
    uint32 promptTokens;
    uint32 outputTokens;
    uint32 acks;
    bytes32 lastPreimage;
    uint8 finish;
    uint64 startedMs;
    uint64 firstTokenMs;
    uint64 finishedMs;
    bytes32 auditCommitment;
}

/// @dev A log's size and root at a time.
struct Checkpoint {
    bytes32 logId;
    uint64 epoch;
    uint64 size;
    bytes32 root;
    uint64 timeMs;
}

/// @dev The netted rows of the leaves `[prevSize, newSize)` of a log. `debits` and `credits` are
/// packed rows, see {PackedRows}.
struct Batch {
    bytes32 logId;
    uint64 epoch;
    uint64 sequence;
    uint64 prevSize;
    uint64 newSize;
    bytes32 prevRoot;
    bytes32 newRoot;
    uint32 parties;
    bytes32 statementRoot;
    uint96 fees;
    uint64 timeMs;
    bytes debits;
    bytes credits;
}

/// @dev A node key's registration or the update of one.
struct NodeRegistration {
    address node;
    address payout;
    bytes32 peerX;
    bytes32 peerY;
    uint64 nonce;
    uint64 deadlineMs;
}

/// @dev A gateway key's registration or the update of one.
struct GatewayRegistration {
    address gateway;
    bytes32 peerX;
    bytes32 peerY;
    uint64 nonce;
    uint64 deadlineMs;
    string[] endpoints;
}

/// @dev What a verifier found in an attestation document.
struct Verdict {
    bytes32 logId;
    address key;
    bytes32 measurement;
    bytes32 parametersDigest;
    bytes32 manifestDigest;
    bytes32 payloadDigest;
    uint64 blockNumber;
    bytes32 blockHash;
    uint64 documentMs;
    uint64 expiresMs;
}

/// @title EIP-712 hashing of every type that contracts read
/// @notice One domain for the whole deployment: `verifyingContract` is Settlement in every contract.
/// Hashing only. Who must have signed, and whether the values make sense, is the caller's question.
library TypedData {
    bytes32 internal constant DOMAIN_TYPEHASH = keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    );

    bytes32 internal constant SEGMENT_TYPEHASH = keccak256(
        "Segment(address node,uint8 rank,bytes32 awardDigest,bytes32 completionDigest,bytes32 segmentCommitment,uint64 startByte,uint64 endByte,uint32 promptBilled,uint32 outputBilled,uint32 outputNode,uint32 outputGateway,uint32 acks,uint64 priceIn,uint64 priceOut,uint8 clearing,uint8 result,uint96 amount,uint96 fee,uint64 nodeCounter,uint128 nodeTotal)"
    );

    bytes32 internal constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(bytes32 logId,uint64 epoch,bytes16 jobId,address gateway,address payer,bytes32 account,bytes32 jobDigest,bytes32 grantDigest,bytes32 deliveryDigest,bytes32 fingerprint,bytes32 requestCommitment,bytes32 responseCommitment,uint8 status,uint8 reason,uint96 total,uint64 payerCounter,uint128 payerTotal,uint64 accountCounter,uint128 accountTotal,uint128 accountLimit,uint96 grantSpent,uint96 grantSpentDay,bytes32 nonce,bytes32 bidsRoot,uint32 bids,uint64 receivedMs,uint64 awardedMs,uint64 firstTokenMs,uint64 finishedMs,uint64 closedMs,bytes32 measurement,bytes32 parametersDigest,bytes32 supersedes,string model,Segment[] segments)Segment(address node,uint8 rank,bytes32 awardDigest,bytes32 completionDigest,bytes32 segmentCommitment,uint64 startByte,uint64 endByte,uint32 promptBilled,uint32 outputBilled,uint32 outputNode,uint32 outputGateway,uint32 acks,uint64 priceIn,uint64 priceOut,uint8 clearing,uint8 result,uint96 amount,uint96 fee,uint64 nodeCounter,uint128 nodeTotal)"
    );

    bytes32 internal constant COMPLETION_TYPEHASH = keccak256(
        "Completion(bytes32 awardDigest,address node,bytes32 fingerprint,bytes32 segmentCommitment,bytes32 responseCommitment,uint64 startByte,uint64 endByte,uint32 promptTokens,uint32 outputTokens,uint32 acks,bytes32 lastPreimage,uint8 finish,uint64 startedMs,uint64 firstTokenMs,uint64 finishedMs,bytes32 auditCommitment)"
    );

    bytes32 internal constant CHECKPOINT_TYPEHASH = keccak256(
        "Checkpoint(bytes32 logId,uint64 epoch,uint64 size,bytes32 root,uint64 timeMs)"
    );

    bytes32 internal constant BATCH_TYPEHASH = keccak256(
        "Batch(bytes32 logId,uint64 epoch,uint64 sequence,uint64 prevSize,uint64 newSize,bytes32 prevRoot,bytes32 newRoot,uint32 parties,bytes32 statementRoot,uint96 fees,uint64 timeMs,bytes debits,bytes credits)"
    );

    bytes32 internal constant NODE_REGISTRATION_TYPEHASH = keccak256(
        "NodeRegistration(address node,address payout,bytes32 peerX,bytes32 peerY,uint64 nonce,uint64 deadlineMs)"
    );

    bytes32 internal constant GATEWAY_REGISTRATION_TYPEHASH = keccak256(
        "GatewayRegistration(address gateway,bytes32 peerX,bytes32 peerY,uint64 nonce,uint64 deadlineMs,string[] endpoints)"
    );

    bytes32 internal constant PEER_BINDING_TYPEHASH = keccak256(
        "PeerBinding(address owner,uint8 role,bytes32 peerX,bytes32 peerY)"
    );

    bytes32 internal constant VERDICT_TYPEHASH = keccak256(
        "Verdict(bytes32 logId,address key,bytes32 measurement,bytes32 parametersDigest,bytes32 manifestDigest,bytes32 payloadDigest,uint64 blockNumber,bytes32 blockHash,uint64 documentMs,uint64 expiresMs)"
    );

    bytes32 internal constant LOG_TYPEHASH = keccak256("Log(address operator,uint64 number)");

    /// @notice The one separator of a deployment.
    /// @param settlement Address of Settlement on this chain, also when another contract asks.
    function domainSeparator(address settlement) internal view returns (bytes32) {
        return
            keccak256(
                abi.encode(DOMAIN_TYPEHASH, keccak256("Pinaivu"), keccak256("1"), block.chainid, settlement)
            );
    }

    /// @notice What is signed for a struct hash.
    function digest(bytes32 separator, bytes32 structHash) internal pure returns (bytes32) {
        return keccak256(bytes.concat(hex"1901", separator, structHash));
    }

    function hash(Segment memory segment) internal pure returns (bytes32) {
        return keccak256(abi.encode(SEGMENT_TYPEHASH, segment));
    }

    function hash(Receipt memory receipt) internal pure returns (bytes32) {
        uint256 count = receipt.segments.length;
        bytes32[] memory segments = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            segments[i] = hash(receipt.segments[i]);
        }
        bytes memory head = abi.encode(RECEIPT_TYPEHASH, receipt.head);
        return keccak256(bytes.concat(head, receipt.modelKey, keccak256(abi.encodePacked(segments))));
    }

    function hash(Completion memory completion) internal pure returns (bytes32) {
        return keccak256(abi.encode(COMPLETION_TYPEHASH, completion));
    }

    function hash(Checkpoint memory checkpoint) internal pure returns (bytes32) {
        return keccak256(abi.encode(CHECKPOINT_TYPEHASH, checkpoint));
    }

    /// @dev Its eleven words before the rows stand in calldata as EIP-712 wants them, so they are copied in
    /// one piece, 800 gas less than member by member. A word with dirty upper bits is hashed as it
    /// stands, so it settles only if the epoch's key signed those bits; the value read is the lower ones.
    function hash(Batch calldata batch) internal pure returns (bytes32 structHash) {
        bytes32 typehash = BATCH_TYPEHASH;
        bytes32 debits = keccak256(batch.debits);
        bytes32 credits = keccak256(batch.credits);
        // solhint-disable-next-line no-inline-assembly
        assembly ("memory-safe") {
            let words := mload(0x40)
            mstore(words, typehash)
            calldatacopy(add(words, 32), batch, 352)
            mstore(add(words, 384), debits)
            mstore(add(words, 416), credits)
            structHash := keccak256(words, 448)
        }
    }

    function hash(NodeRegistration memory registration) internal pure returns (bytes32) {
        return keccak256(abi.encode(NODE_REGISTRATION_TYPEHASH, registration));
    }

    function hash(GatewayRegistration memory registration) internal pure returns (bytes32) {
        uint256 count = registration.endpoints.length;
        bytes32[] memory endpoints = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            endpoints[i] = keccak256(bytes(registration.endpoints[i]));
        }
        return
            keccak256(
                abi.encode(
                    GATEWAY_REGISTRATION_TYPEHASH,
                    registration.gateway,
                    registration.peerX,
                    registration.peerY,
                    registration.nonce,
                    registration.deadlineMs,
                    keccak256(abi.encodePacked(endpoints))
                )
            );
    }

    function hash(Verdict memory verdict) internal pure returns (bytes32) {
        return keccak256(abi.encode(VERDICT_TYPEHASH, verdict));
    }

    function hashPeerBinding(
        address owner,
        uint8 role,
        bytes32 peerX,
        bytes32 peerY
    ) internal pure returns (bytes32) {
        return keccak256(abi.encode(PEER_BINDING_TYPEHASH, owner, role, peerX, peerY));
    }

    function hashLog(address operator, uint64 number) internal pure returns (bytes32) {
        return keccak256(abi.encode(LOG_TYPEHASH, operator, number));
    }
}
