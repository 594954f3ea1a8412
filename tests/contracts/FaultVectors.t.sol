// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEnclaveRegistry} from "../../contracts/interfaces/IEnclaveRegistry.sol";
import {IObjectiveFaults} from "../../contracts/interfaces/IObjectiveFaults.sol";
import {
    Checkpoint,
    Completion,
    Receipt,
    ReceiptHead,
    Segment,
    TypedData
} from "../../contracts/libraries/TypedData.sol";
import {Test} from "./support/Test.sol";

/// @dev A receipt as the vectors carry it, with its model in words.
struct ReceiptWithModel {
    ReceiptHead head;
    string model;
    Segment[] segments;
}

/// @dev Both registries and Settlement of a vector's domain: every epoch has one key, nobody has money.
contract DeploymentDouble {
    bytes32 public domainSeparator;
    address public faults;
    address public token;
    address public key;

    constructor(bytes32 separator, address faults_, address key_) {
        (domainSeparator, faults, key) = (separator, faults_, key_);
    }

    function epochOf(bytes32, uint64) external view returns (IEnclaveRegistry.Epoch memory epoch) {
        epoch.key = key;
    }

    function slashReserve(bytes32) external pure returns (uint96) {
        return 0;
    }
}

/// @dev What Python and viem signed, the contract takes for signed: every golden vector is reported.
contract FaultVectorsTest is Test {
    string private constant SEGMENT =
        "Segment(address node,uint8 rank,bytes32 awardDigest,bytes32 completionDigest,bytes32 segmentCommitment,uint64 startByte,uint64 endByte,uint32 promptBilled,uint32 outputBilled,uint32 outputNode,uint32 outputGateway,uint32 acks,uint64 priceIn,uint64 priceOut,uint8 clearing,uint8 result,uint96 amount,uint96 fee,uint64 nodeCounter,uint128 nodeTotal)";
    string private constant RECEIPT =
        "Receipt(bytes32 logId,uint64 epoch,bytes16 jobId,address gateway,address payer,bytes32 account,bytes32 jobDigest,bytes32 grantDigest,bytes32 deliveryDigest,bytes32 fingerprint,bytes32 requestCommitment,bytes32 responseCommitment,uint8 status,uint8 reason,uint96 total,uint64 payerCounter,uint128 payerTotal,uint64 accountCounter,uint128 accountTotal,uint128 accountLimit,uint96 grantSpent,uint96 grantSpentDay,bytes32 nonce,bytes32 bidsRoot,uint32 bids,uint64 receivedMs,uint64 awardedMs,uint64 firstTokenMs,uint64 finishedMs,uint64 closedMs,bytes32 measurement,bytes32 parametersDigest,bytes32 supersedes,string model,Segment[] segments)";
    string private constant COMPLETION =
        "Completion(bytes32 awardDigest,address node,bytes32 fingerprint,bytes32 segmentCommitment,bytes32 responseCommitment,uint64 startByte,uint64 endByte,uint32 promptTokens,uint32 outputTokens,uint32 acks,bytes32 lastPreimage,uint8 finish,uint64 startedMs,uint64 firstTokenMs,uint64 finishedMs,bytes32 auditCommitment)";
    string private constant CHECKPOINT =
        "Checkpoint(bytes32 logId,uint64 epoch,uint64 size,bytes32 root,uint64 timeMs)";

    uint256 private constant EVERY_BYTE = type(uint256).max / 255; // 0x0101…01
    uint256 private constant PYTHON_KEY = 7 * EVERY_BYTE;
    uint256 private constant VIEM_KEY = 9 * EVERY_BYTE;
    address private constant REPORTER = address(0x4e90);

    string private json;
    string private vector;
    uint256 private key;
    IObjectiveFaults private faults;

    function test_PythonVectors() external {
        _report("./tests/vectors/typed_data.json", PYTHON_KEY);
    }

    function test_ViemVectors() external {
        _report("./tests/vectors/typed_data_viem.json", VIEM_KEY);
    }

    function _report(string memory file, uint256 key_) private {
        (json, key) = (vm.readFile(file), key_);
        eq(vm.parseJsonAddress(json, ".signer"), vm.addr(key));
        string[] memory types = abi.decode(vm.parseJson(json, ".vectors[*].type"), (string[]));
        uint256 reported;
        for (uint256 i = 0; i < types.length; ++i) {
            vector = string.concat(".vectors[", vm.toString(i), "]");
            bytes32 id = keccak256(bytes(types[i]));
            if (id == keccak256("Completion")) _reportCompletion();
            else if (id == keccak256("Checkpoint")) _reportCheckpoint();
            else if (id == keccak256("Receipt")) _reportReceipt();
            else continue;
            ++reported;
        }
        eq(reported, 12);
    }

    /// @dev The named node is not the vectors' signer; that this is whom the contract finds shows the digest.
    function _reportCompletion() private {
        Completion memory first = abi.decode(
            vm.parseJsonType(json, _at(".message"), COMPLETION),
            (Completion)
        );
        bytes memory signed = _deploy();
        Completion memory second = abi.decode(abi.encode(first), (Completion));
        second.outputTokens ^= 1;
        reverts(abi.encodeWithSelector(IObjectiveFaults.WrongSigner.selector, first.node, vm.addr(key)));
        faults.reportCompletions(first, signed, second, signed, REPORTER);
    }

    function _reportCheckpoint() private {
        Checkpoint memory first = abi.decode(
            vm.parseJsonType(json, _at(".message"), CHECKPOINT),
            (Checkpoint)
        );
        bytes memory signed = _deploy();
        Checkpoint memory second = abi.decode(abi.encode(first), (Checkpoint));
        second.root = ~first.root;
        bytes32 digest = TypedData.digest(faults.domainSeparator(), TypedData.hash(second));
        faults.reportCheckpoints(first, signed, second, signature(key, digest), REPORTER);
    }

    function _reportReceipt() private {
        ReceiptWithModel memory read = abi.decode(
            vm.parseJsonType(json, _at(".message"), string.concat(RECEIPT, SEGMENT)),
            (ReceiptWithModel)
        );
        bytes memory signed = _deploy();
        Receipt memory made = Receipt(read.head, keccak256(bytes(read.model)), read.segments);
        uint256 sum;
        for (uint256 i = 0; i < made.segments.length; ++i) sum += made.segments[i].amount;
        uint96 total = made.head.total;
        if (sum == total) {
            reverts(abi.encodeWithSelector(IObjectiveFaults.RightTotal.selector, total));
        } else {
            bytes32 digest = vm.parseJsonBytes32(json, _at(".digest"));
            vm.expectEmit(address(faults));
            emit IObjectiveFaults.ReceiptReported(made.head.logId, digest, total, sum, REPORTER, 0, 0);
        }
        faults.reportReceipt(made, signed, REPORTER);
    }

    /// @dev The faults contract of the vector's domain. Returns the vector's signature.
    function _deploy() private returns (bytes memory) {
        vm.chainId(vm.parseJsonUint(json, _at(".domain.chainId")));
        address settlement = vm.parseJsonAddress(json, _at(".domain.settlement"));
        address future = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        bytes32 separator = TypedData.domainSeparator(settlement);
        DeploymentDouble double = new DeploymentDouble(separator, future, vm.addr(key));
        vm.etch(settlement, address(double).code);
        bytes memory arguments = abi.encode(settlement, double, double, REPORTER);
        faults = IObjectiveFaults(create("contracts/ObjectiveFaults.sol/ObjectiveFaults", arguments));
        return vm.parseJsonBytes(json, _at(".signature"));
    }

    function _at(string memory member) private view returns (string memory) {
        return string.concat(vector, member);
    }
}
