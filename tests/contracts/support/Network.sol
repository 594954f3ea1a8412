// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAttestationVerifier} from "../../../contracts/interfaces/IAttestationVerifier.sol";
import {IEnclaveRegistry} from "../../../contracts/interfaces/IEnclaveRegistry.sol";
import {IGatewayRegistry} from "../../../contracts/interfaces/IGatewayRegistry.sol";
import {ILogAnchors} from "../../../contracts/interfaces/ILogAnchors.sol";
import {IModelRegistry} from "../../../contracts/interfaces/IModelRegistry.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {IObjectiveFaults} from "../../../contracts/interfaces/IObjectiveFaults.sol";
import {IReceiptLog} from "../../../contracts/interfaces/IReceiptLog.sol";
import {ISettlement} from "../../../contracts/interfaces/ISettlement.sol";
import {Batch, TypedData, Verdict} from "../../../contracts/libraries/TypedData.sol";
import {IMintable} from "./IMintable.sol";
import {Peer, Peers} from "./Peers.sol";
import {ReferenceTree} from "./ReferenceTree.sol";
import {Test} from "./Test.sol";

import {IAccessManager} from "@openzeppelin/contracts/access/manager/IAccessManager.sol";

/// @dev The whole deployment with one log in its first epoch, and what an enclave and the parties do.
abstract contract Network is Test {
    string internal constant ACCESS_MANAGER =
        "@openzeppelin/contracts/access/manager/AccessManager.sol/AccessManager";
    string internal constant RECEIPT_LOG = "contracts/ReceiptLog.sol/ReceiptLog";
    string internal constant NODE_REGISTRY = "contracts/NodeRegistry.sol/NodeRegistry";
    string internal constant GATEWAY_REGISTRY = "contracts/GatewayRegistry.sol/GatewayRegistry";
    string internal constant MODEL_REGISTRY = "contracts/ModelRegistry.sol/ModelRegistry";
    string internal constant ENCLAVE_REGISTRY = "contracts/EnclaveRegistry.sol/EnclaveRegistry";
    string internal constant OBJECTIVE_FAULTS = "contracts/ObjectiveFaults.sol/ObjectiveFaults";
    string internal constant SETTLEMENT = "contracts/Settlement.sol/Settlement";
    string internal constant TEST_TOKEN = "contracts/mocks/TestToken.sol/TestToken";
    string internal constant VERIFIER =
        "contracts/mocks/SimulatedAttestationVerifier.sol/SimulatedAttestationVerifier";

    uint64 internal constant GUARDIAN_ROLE = 1;
    uint64 internal constant REGISTRAR_ROLE = 2;

    address internal constant ADMIN = address(0xad01);
    address internal constant GUARDIAN = address(0x9a4d);
    address internal constant REGISTRAR = address(0x4e91);
    address internal constant OPERATOR = address(0x09e4);
    address internal constant STRANGER = address(0x5724);
    address internal constant BENEFICIARY = address(0xbe4e);

    uint256 internal constant ENCLAVE_KEY = 0xe1;
    uint256 internal constant SIMULATOR_KEY = 0x51;
    bytes32 internal constant MEASUREMENT = keccak256("measurement");
    bytes32 internal constant PARAMETERS = keccak256("parameters");

    uint32 internal constant EPOCH_LIFETIME = 30 days;
    uint32 internal constant PAYOUT_DELAY = 3 days;
    uint32 internal constant WITHDRAWAL_DELAY = 3 days;
    uint32 internal constant UNBONDING_DELAY = 4 days;
    uint32 internal constant ADMIN_DELAY = 7 days;
    uint32 internal constant EVERYTHING_PPM = 1_000_000;

    IAccessManager internal manager;
    IMintable internal token;
    IReceiptLog internal receiptLog;
    INodeRegistry internal nodeRegistry;
    IGatewayRegistry internal gatewayRegistry;
    IModelRegistry internal modelRegistry;
    IAttestationVerifier internal verifier;
    IEnclaveRegistry internal enclaveRegistry;
    IObjectiveFaults internal faults;
    ISettlement internal settlement;

    bytes32 internal logId;
    bytes32[] internal leaves;
    ILogAnchors.Anchor internal anchor; // the last one
    uint64 internal epoch;
    uint256 internal enclaveKey = ENCLAVE_KEY; // of the active epoch

    function deploy() internal {
        deploy(IMintable(create(TEST_TOKEN, "")), EVERYTHING_PPM);
    }

    /// @dev Deploys everything, opens OPERATOR's log, allows the code and starts the log's first epoch.
    function deploy(IMintable token_, uint32 debitLimitPpm) internal {
        vm.warp(1_800_000_000);
        vm.roll(1_000);
        token = token_;
        deployContracts(debitLimitPpm, standardTimes());
        _grantRoles();
        logId = openLog(OPERATOR);
        vm.prank(ADMIN);
        enclaveRegistry.proposePair(MEASUREMENT, PARAMETERS);
        vm.warp(block.timestamp + ADMIN_DELAY);
        epoch = activate(logId, ENCLAVE_KEY);
    }

    function standardTimes() internal pure returns (ISettlement.Times memory) {
        return
            ISettlement.Times({
                unsettledMax: 1 hours,
                pauseMax: 12 hours,
                withdrawalDelay: WITHDRAWAL_DELAY,
                adminDelay: ADMIN_DELAY,
                pauseInterval: 7 days,
                limiterWindow: 1 days
            });
    }

    /// @dev Settlement is the eighth contract created from here on, the faults contract the seventh, and
    /// their addresses are known beforehand.
    function deployContracts(uint32 debitLimitPpm, ISettlement.Times memory times) internal {
        address future = futureAddress(8);
        address futureFaults = futureAddress(7);
        manager = IAccessManager(create(ACCESS_MANAGER, abi.encode(ADMIN)));
        receiptLog = IReceiptLog(create(RECEIPT_LOG, abi.encode(future)));
        nodeRegistry = INodeRegistry(create(NODE_REGISTRY, nodeRegistryArguments(future, futureFaults)));
        gatewayRegistry = IGatewayRegistry(create(GATEWAY_REGISTRY, abi.encode(future)));
        modelRegistry = IModelRegistry(create(MODEL_REGISTRY, abi.encode(manager)));
        bytes memory arguments = abi.encode(future, vm.addr(SIMULATOR_KEY));
        verifier = IAttestationVerifier(create(VERIFIER, arguments));
        arguments = abi.encode(manager, receiptLog, verifier, ADMIN_DELAY, EPOCH_LIFETIME);
        enclaveRegistry = IEnclaveRegistry(create(ENCLAVE_REGISTRY, arguments));
        arguments = abi.encode(future, nodeRegistry, enclaveRegistry, BENEFICIARY);
        faults = IObjectiveFaults(create(OBJECTIVE_FAULTS, arguments));
        settlement = ISettlement(create(SETTLEMENT, abi.encode(config(debitLimitPpm, times))));
        eq(address(settlement), future);
    }

    /// @dev Address of the contract that this one creates after `others` more.
    function futureAddress(uint64 others) internal view returns (address) {
        return vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + others);
    }

    function nodeRegistryArguments(
        address settlement_,
        address faults_
    ) internal view returns (bytes memory) {
        return abi.encode(settlement_, PAYOUT_DELAY, token, faults_, UNBONDING_DELAY);
    }

    function config(
        uint32 debitLimitPpm,
        ISettlement.Times memory times
    ) internal view returns (ISettlement.Config memory) {
        return
            ISettlement.Config({
                token: token,
                authority: address(manager),
                receiptLog: receiptLog,
                enclaveRegistry: enclaveRegistry,
                nodeRegistry: nodeRegistry,
                gatewayRegistry: gatewayRegistry,
                modelRegistry: modelRegistry,
                faults: faults,
                debitLimitPpm: debitLimitPpm,
                times: times
            });
    }

    function openLog(address operator) internal returns (bytes32) {
        vm.prank(operator);
        return receiptLog.openLog(new string[](0));
    }

    /// @dev Starts an epoch of OPERATOR's log with the simulator's word for `key`.
    function activate(bytes32 log, uint256 key) internal returns (uint64) {
        Verdict memory verdict = verdictFor(log, key);
        bytes memory evidence = evidenceFor(verdict);
        vm.prank(OPERATOR);
        return enclaveRegistry.activate(verdict, evidence);
    }

    function verdictFor(bytes32 log, uint256 key) internal view returns (Verdict memory) {
        return
            Verdict({
                logId: log,
                key: vm.addr(key),
                measurement: MEASUREMENT,
                parametersDigest: PARAMETERS,
                manifestDigest: keccak256("manifest"),
                payloadDigest: keccak256("payload"),
                blockNumber: uint64(block.number - 1),
                blockHash: blockhash(block.number - 1),
                documentMs: uint64(block.timestamp * 1000 - 5_000),
                expiresMs: uint64(block.timestamp * 1000 + 60_000)
            });
    }

    function evidenceFor(Verdict memory verdict) internal view returns (bytes memory) {
        bytes32 separator = settlement.domainSeparator();
        return signature(SIMULATOR_KEY, TypedData.digest(separator, TypedData.hash(verdict)));
    }

    /// @dev Registers node number `number` with a payout wallet of its own and returns both addresses.
    function registerNode(uint256 number) internal returns (address node, address wallet) {
        node = address(uint160(0x10de00 + number));
        wallet = address(uint160(0xbeef00 + number));
        Peer memory peer = Peers.get(number);
        bytes memory binding = bindingSignature(peer, node, 2);
        vm.prank(node);
        nodeRegistry.register(wallet, peer.x, peer.y, binding);
    }

    function bindingSignature(
        Peer memory peer,
        address owner,
        uint8 role
    ) internal view returns (bytes memory) {
        bytes32 structHash = TypedData.hashPeerBinding(owner, role, peer.x, peer.y);
        return signature(peer.key, TypedData.digest(settlement.domainSeparator(), structHash));
    }

    /// @dev Gives `payer` money and deposits it.
    function deposit(address payer, uint96 amount) internal {
        token.mint(payer, amount);
        vm.startPrank(payer);
        token.approve(address(settlement), amount);
        settlement.deposit(amount);
        vm.stopPrank();
    }

    function depositAndAssign(address payer, uint96 amount) internal {
        deposit(payer, amount);
        vm.prank(payer);
        settlement.assign(logId);
    }

    function fundReserve(uint96 amount) internal {
        token.mint(OPERATOR, amount);
        vm.startPrank(OPERATOR);
        token.approve(address(settlement), amount);
        settlement.fundReserve(logId, amount);
        vm.stopPrank();
    }

    function row(address party, uint96 amount) internal pure returns (bytes memory) {
        return abi.encodePacked(party, amount);
    }

    /// @dev The log's next batch, over one new leaf.
    function nextBatch(
        bytes memory debits,
        bytes memory credits,
        uint96 fees
    ) internal returns (Batch memory batch) {
        uint64 prevSize = anchor.newSize;
        while (leaves.length <= prevSize) leaves.push(sha256(abi.encode("leaf", leaves.length)));
        batch.logId = logId;
        batch.epoch = epoch;
        batch.sequence = anchor.sequence + 1;
        batch.prevSize = prevSize;
        batch.newSize = uint64(leaves.length);
        batch.prevRoot = ReferenceTree.root(leaves, prevSize);
        batch.newRoot = ReferenceTree.root(leaves, leaves.length);
        batch.fees = fees;
        batch.timeMs = uint64(block.timestamp * 1000);
        batch.debits = debits;
        batch.credits = credits;
    }

    /// @dev Word by word, as the specification reads, and not with the library under test.
    function digestOf(Batch memory batch) internal view returns (bytes32) {
        bytes32[13] memory words = [
            TypedData.BATCH_TYPEHASH,
            batch.logId,
            bytes32(uint256(batch.epoch)),
            bytes32(uint256(batch.sequence)),
            bytes32(uint256(batch.prevSize)),
            bytes32(uint256(batch.newSize)),
            batch.prevRoot,
            batch.newRoot,
            bytes32(uint256(batch.parties)),
            batch.statementRoot,
            bytes32(uint256(batch.fees)),
            bytes32(uint256(batch.timeMs)),
            keccak256(batch.debits)
        ];
        bytes32 structHash = keccak256(bytes.concat(abi.encode(words), keccak256(batch.credits)));
        return TypedData.digest(settlement.domainSeparator(), structHash);
    }

    function lastAnchor() internal view returns (ILogAnchors.LastAnchor memory) {
        return ILogAnchors.LastAnchor(anchor.prevSize, anchor.batchDigest);
    }

    function consistencyOf(Batch memory batch) internal view returns (bytes32[] memory) {
        return ReferenceTree.consistency(leaves, batch.prevSize, batch.newSize);
    }

    /// @dev Signs and submits as a stranger, and remembers the anchor.
    function settle(Batch memory batch) internal {
        bytes32 digest = digestOf(batch);
        bytes memory signed = signature(enclaveKey, digest);
        bytes32[] memory proof = consistencyOf(batch);
        ILogAnchors.LastAnchor memory last = lastAnchor();
        vm.prank(STRANGER);
        settlement.settle(batch, signed, proof, last);
        anchor = ILogAnchors.Anchor(
            logId,
            batch.sequence,
            batch.prevSize,
            batch.newSize,
            batch.newRoot,
            digest
        );
    }

    /// @dev Submits, and expects the very call to settle to revert with `data`.
    function settleReverts(Batch memory batch, bytes memory data) internal {
        bytes memory signed = signature(ENCLAVE_KEY, digestOf(batch));
        bytes32[] memory proof = consistencyOf(batch);
        ILogAnchors.LastAnchor memory last = lastAnchor();
        reverts(data);
        settlement.settle(batch, signed, proof, last);
    }

    function balanceOf(address payer) internal view returns (uint96) {
        return settlement.accountOf(logId, payer).balance;
    }

    function creditOf(address node) internal view returns (uint128 credit) {
        (credit, ) = settlement.creditOf(node);
    }

    function _grantRoles() private {
        bytes4[] memory guardian = new bytes4[](2);
        (guardian[0], guardian[1]) = (ISettlement.pause.selector, ISettlement.unpause.selector);
        bytes4[] memory revocations = new bytes4[](2);
        (revocations[0], revocations[1]) = (
            enclaveRegistry.revokePair.selector,
            enclaveRegistry.revokeEpoch.selector
        );
        bytes4[] memory registrar = new bytes4[](2);
        (registrar[0], registrar[1]) = (modelRegistry.setModel.selector, modelRegistry.removeModel.selector);
        vm.startPrank(ADMIN);
        manager.setTargetFunctionRole(address(settlement), guardian, GUARDIAN_ROLE);
        manager.setTargetFunctionRole(address(enclaveRegistry), revocations, GUARDIAN_ROLE);
        manager.setTargetFunctionRole(address(modelRegistry), registrar, REGISTRAR_ROLE);
        manager.grantRole(GUARDIAN_ROLE, GUARDIAN, 0);
        manager.grantRole(REGISTRAR_ROLE, REGISTRAR, 0);
        vm.stopPrank();
    }
}
