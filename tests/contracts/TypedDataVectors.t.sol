// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {
    Batch,
    Checkpoint,
    Completion,
    GatewayRegistration,
    NodeRegistration,
    Receipt,
    ReceiptHead,
    Segment,
    TypedData,
    Verdict
} from "../../contracts/libraries/TypedData.sol";
import {Test} from "./support/Test.sol";

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @dev A receipt as the vectors carry it, with its model in words.
struct ReceiptWithModel {
    ReceiptHead head;
    string model;
    Segment[] segments;
}

struct PeerBinding {
    address owner;
    uint8 role;
    bytes32 peerX;
    bytes32 peerY;
}

struct Log {
    address operator;
    uint64 number;
}

contract BatchHasher {
    function hash(Batch calldata batch) external pure returns (bytes32) {
        return TypedData.hash(batch);
    }
}

/// @dev Every golden vector of a type that contracts know: Python's file and viem's.
contract TypedDataVectorsTest is Test {
    string private constant OURS = "./tests/vectors/typed_data.json";
    string private constant VIEM = "./tests/vectors/typed_data_viem.json";

    string private constant SEGMENT =
        "Segment(address node,uint8 rank,bytes32 awardDigest,bytes32 completionDigest,bytes32 segmentCommitment,uint64 startByte,uint64 endByte,uint32 promptBilled,uint32 outputBilled,uint32 outputNode,uint32 outputGateway,uint32 acks,uint64 priceIn,uint64 priceOut,uint8 clearing,uint8 result,uint96 amount,uint96 fee,uint64 nodeCounter,uint128 nodeTotal)";
    string private constant RECEIPT =
        "Receipt(bytes32 logId,uint64 epoch,bytes16 jobId,address gateway,address payer,bytes32 account,bytes32 jobDigest,bytes32 grantDigest,bytes32 deliveryDigest,bytes32 fingerprint,bytes32 requestCommitment,bytes32 responseCommitment,uint8 status,uint8 reason,uint96 total,uint64 payerCounter,uint128 payerTotal,uint64 accountCounter,uint128 accountTotal,uint128 accountLimit,uint96 grantSpent,uint96 grantSpentDay,bytes32 nonce,bytes32 bidsRoot,uint32 bids,uint64 receivedMs,uint64 awardedMs,uint64 firstTokenMs,uint64 finishedMs,uint64 closedMs,bytes32 measurement,bytes32 parametersDigest,bytes32 supersedes,string model,Segment[] segments)";
    string private constant COMPLETION =
        "Completion(bytes32 awardDigest,address node,bytes32 fingerprint,bytes32 segmentCommitment,bytes32 responseCommitment,uint64 startByte,uint64 endByte,uint32 promptTokens,uint32 outputTokens,uint32 acks,bytes32 lastPreimage,uint8 finish,uint64 startedMs,uint64 firstTokenMs,uint64 finishedMs,bytes32 auditCommitment)";
    string private constant CHECKPOINT =
        "Checkpoint(bytes32 logId,uint64 epoch,uint64 size,bytes32 root,uint64 timeMs)";
    string private constant BATCH =
        "Batch(bytes32 logId,uint64 epoch,uint64 sequence,uint64 prevSize,uint64 newSize,bytes32 prevRoot,bytes32 newRoot,uint32 parties,bytes32 statementRoot,uint96 fees,uint64 timeMs,bytes debits,bytes credits)";
    string private constant NODE =
        "NodeRegistration(address node,address payout,bytes32 peerX,bytes32 peerY,uint64 nonce,uint64 deadlineMs)";
    string private constant GATEWAY =
        "GatewayRegistration(address gateway,bytes32 peerX,bytes32 peerY,uint64 nonce,uint64 deadlineMs,string[] endpoints)";
    string private constant BINDING = "PeerBinding(address owner,uint8 role,bytes32 peerX,bytes32 peerY)";
    string private constant VERDICT =
        "Verdict(bytes32 logId,address key,bytes32 measurement,bytes32 parametersDigest,bytes32 manifestDigest,bytes32 payloadDigest,uint64 blockNumber,bytes32 blockHash,uint64 documentMs,uint64 expiresMs)";
    string private constant LOG = "Log(address operator,uint64 number)";

    uint256 private constant TYPES_OF_CONTRACTS = 10;
    uint256 private constant LEAST_PER_TYPE = 2;

    BatchHasher private immutable BATCHES = new BatchHasher();

    error VectorDiffers(string file, string vector, bytes32 found, bytes32 expected);

    function test_PythonVectors() external {
        _checkFile(OURS);
    }

    function test_ViemVectors() external {
        _checkFile(VIEM);
    }

    function test_TheDomainTypehashIsTheSpecified() external pure {
        eq(TypedData.DOMAIN_TYPEHASH, 0x8b73c3c69bb8fe3d512ecc4cf759cc79239f7b179b0ffacaa9a75d522b39400f);
    }

    function _checkFile(string memory file) private {
        string memory json = vm.readFile(file);
        address signer = vm.parseJsonAddress(json, ".signer");
        string[] memory types = abi.decode(vm.parseJson(json, ".vectors[*].type"), (string[]));
        uint256 checked;
        for (uint256 i = 0; i < types.length; ++i) {
            string memory vector = string.concat(".vectors[", vm.toString(i), "]");
            (bool known, bytes32 structHash) = _hash(json, string.concat(vector, ".message"), types[i]);
            if (!known) continue;
            ++checked;
            _expect(
                file,
                vector,
                structHash,
                vm.parseJsonBytes32(json, string.concat(vector, ".structHash"))
            );
            bytes32 digest = _digest(json, vector, structHash);
            _expect(file, vector, digest, vm.parseJsonBytes32(json, string.concat(vector, ".digest")));
            bytes memory signed = vm.parseJsonBytes(json, string.concat(vector, ".signature"));
            eq(ECDSA.recover(digest, signed), signer);
        }
        check(checked >= TYPES_OF_CONTRACTS * LEAST_PER_TYPE);
    }

    function _digest(string memory json, string memory vector, bytes32 structHash) private returns (bytes32) {
        vm.chainId(vm.parseJsonUint(json, string.concat(vector, ".domain.chainId")));
        address settlement = vm.parseJsonAddress(json, string.concat(vector, ".domain.settlement"));
        return TypedData.digest(TypedData.domainSeparator(settlement), structHash);
    }

    function _hash(
        string memory json,
        string memory key,
        string memory name
    ) private view returns (bool known, bytes32) {
        bytes32 id = keccak256(bytes(name));
        if (id == keccak256("Receipt")) {
            ReceiptWithModel memory r = abi.decode(
                vm.parseJsonType(json, key, string.concat(RECEIPT, SEGMENT)),
                (ReceiptWithModel)
            );
            return (true, TypedData.hash(Receipt(r.head, keccak256(bytes(r.model)), r.segments)));
        }
        if (id == keccak256("Segment")) {
            return (true, TypedData.hash(abi.decode(vm.parseJsonType(json, key, SEGMENT), (Segment))));
        }
        if (id == keccak256("Completion")) {
            return (true, TypedData.hash(abi.decode(vm.parseJsonType(json, key, COMPLETION), (Completion))));
        }
        if (id == keccak256("Checkpoint")) {
            return (true, TypedData.hash(abi.decode(vm.parseJsonType(json, key, CHECKPOINT), (Checkpoint))));
        }
        if (id == keccak256("Batch")) {
            return (true, BATCHES.hash(abi.decode(vm.parseJsonType(json, key, BATCH), (Batch))));
        }
        return _hashRegistered(json, key, id);
    }

    function _hashRegistered(
        string memory json,
        string memory key,
        bytes32 id
    ) private pure returns (bool known, bytes32) {
        if (id == keccak256("NodeRegistration")) {
            return (true, TypedData.hash(abi.decode(vm.parseJsonType(json, key, NODE), (NodeRegistration))));
        }
        if (id == keccak256("GatewayRegistration")) {
            return (
                true,
                TypedData.hash(abi.decode(vm.parseJsonType(json, key, GATEWAY), (GatewayRegistration)))
            );
        }
        if (id == keccak256("PeerBinding")) {
            PeerBinding memory b = abi.decode(vm.parseJsonType(json, key, BINDING), (PeerBinding));
            return (true, TypedData.hashPeerBinding(b.owner, b.role, b.peerX, b.peerY));
        }
        if (id == keccak256("Verdict")) {
            return (true, TypedData.hash(abi.decode(vm.parseJsonType(json, key, VERDICT), (Verdict))));
        }
        if (id == keccak256("Log")) {
            Log memory log = abi.decode(vm.parseJsonType(json, key, LOG), (Log));
            return (true, TypedData.hashLog(log.operator, log.number));
        }
        return (false, 0);
    }

    function _expect(string memory file, string memory vector, bytes32 found, bytes32 expected) private pure {
        if (found != expected) revert VectorDiffers(file, vector, found, expected);
    }
}
