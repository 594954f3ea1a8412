// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEnclaveRegistry} from "../../contracts/interfaces/IEnclaveRegistry.sol";
import {IGatewayRegistry} from "../../contracts/interfaces/IGatewayRegistry.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IObjectiveFaults} from "../../contracts/interfaces/IObjectiveFaults.sol";
import {IReceiptLog} from "../../contracts/interfaces/IReceiptLog.sol";
import {ISettlement} from "../../contracts/interfaces/ISettlement.sol";
import {Batch, TypedData} from "../../contracts/libraries/TypedData.sol";
import {Network} from "./support/Network.sol";
import {SilentToken} from "./support/OddTokens.sol";

import {IAccessManaged} from "@openzeppelin/contracts/access/manager/IAccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @dev Construction and pause.
contract SettlementAdminTest is Network {
    function setUp() external {
        deploy();
    }

    function test_TheAddressLeadsToAllTheRest() external view {
        eq(settlement.domainSeparator(), TypedData.domainSeparator(address(settlement)));
        eq(address(settlement.token()), address(token));
        eq(address(settlement.receiptLog()), address(receiptLog));
        eq(address(settlement.enclaveRegistry()), address(enclaveRegistry));
        eq(address(settlement.nodeRegistry()), address(nodeRegistry));
        eq(address(settlement.gatewayRegistry()), address(gatewayRegistry));
        eq(address(settlement.modelRegistry()), address(modelRegistry));
        eq(address(settlement.faults()), address(faults));
        eq(IAccessManaged(address(settlement)).authority(), address(manager));
        eq(keccak256(abi.encode(settlement.times())), keccak256(abi.encode(standardTimes())));
        eq(settlement.debitLimit(), EVERYTHING_PPM);
    }

    function test_TimesMustBeInOrder() external {
        ISettlement.Times memory times = standardTimes();
        times.unsettledMax = 0;
        _refusedTimes(times);
        times = standardTimes();
        times.unsettledMax = times.pauseMax;
        _refusedTimes(times);
        times = standardTimes();
        times.pauseMax = times.withdrawalDelay - times.unsettledMax; // an exit within one pause
        times.limiterWindow = times.pauseMax;
        _refusedTimes(times);
        times = standardTimes();
        times.withdrawalDelay = times.adminDelay; // a new verifier before the exit
        times.pauseInterval = times.withdrawalDelay + 1;
        _refusedTimes(times);
        times = standardTimes();
        times.pauseInterval = times.pauseMax;
        _refusedTimes(times);
        times = standardTimes();
        times.limiterWindow = 0;
        _refusedTimes(times);
    }

    function test_TimesMustLeavePayersAWayOut() external {
        ISettlement.Times memory times = standardTimes();
        times.pauseInterval = times.withdrawalDelay; // two pauses within one exit
        _refusedTimes(times);
        times = standardTimes();
        times.limiterWindow = times.pauseMax - 1; // drains while a pause hides it
        _refusedTimes(times);
        times = standardTimes();
        times.withdrawalDelay = 30 days + 1;
        (times.adminDelay, times.pauseInterval) = (40 days, 40 days);
        _refusedTimes(times);
    }

    function test_ContractsOfAnotherDeploymentAreRefused() external {
        // The contracts in place were made for the present Settlement, so a second one must refuse them.
        reverts(abi.encodeWithSelector(ISettlement.WrongWiring.selector, address(receiptLog)));
        this.construct(config(EVERYTHING_PPM, standardTimes()));
    }

    function test_EveryContractOfTheDeploymentIsCompared() external {
        (address log, address enclaves) = (address(receiptLog), address(enclaveRegistry));
        (address nodes, address gateways) = (address(nodeRegistry), address(gatewayRegistry));
        address otherToken = address(new SilentToken());
        address future = futureAddress(5);
        ISettlement.Config memory wanted = config(EVERYTHING_PPM, standardTimes());
        wanted.receiptLog = IReceiptLog(create(RECEIPT_LOG, abi.encode(future)));
        bytes memory arguments = nodeRegistryArguments(future, futureAddress(3));
        wanted.nodeRegistry = INodeRegistry(create(NODE_REGISTRY, arguments));
        wanted.gatewayRegistry = IGatewayRegistry(create(GATEWAY_REGISTRY, abi.encode(future)));
        arguments = abi.encode(manager, wanted.receiptLog, verifier, ADMIN_DELAY, EPOCH_LIFETIME);
        wanted.enclaveRegistry = IEnclaveRegistry(create(ENCLAVE_REGISTRY, arguments));
        arguments = abi.encode(future, wanted.nodeRegistry, wanted.enclaveRegistry, BENEFICIARY);
        wanted.faults = IObjectiveFaults(create(OBJECTIVE_FAULTS, arguments));

        ISettlement.Config memory mixed = _copy(wanted);
        mixed.receiptLog = IReceiptLog(log);
        _refusedWiring(mixed, log);
        mixed = _copy(wanted);
        mixed.enclaveRegistry = IEnclaveRegistry(enclaves);
        _refusedWiring(mixed, enclaves);
        mixed = _copy(wanted);
        mixed.nodeRegistry = INodeRegistry(nodes);
        _refusedWiring(mixed, nodes);
        mixed = _copy(wanted);
        mixed.gatewayRegistry = IGatewayRegistry(gateways);
        _refusedWiring(mixed, gateways);
        mixed = _copy(wanted);
        mixed.faults = faults;
        _refusedWiring(mixed, address(faults));
        mixed = _copy(wanted);
        mixed.token = IERC20(otherToken); // bonds are of the settlement token
        _refusedWiring(mixed, address(wanted.nodeRegistry));
        mixed = _copy(wanted);
        mixed.times.withdrawalDelay = PAYOUT_DELAY + 1; // a stolen node key gives as long to notice
        _refusedWiring(mixed, address(wanted.nodeRegistry));
        mixed = _copy(wanted);
        mixed.times.withdrawalDelay = UNBONDING_DELAY + 1; // bonds leave no sooner than payers can
        _refusedWiring(mixed, address(wanted.nodeRegistry));
        mixed = _copy(wanted);
        mixed.times.adminDelay += 1; // the registry's own delay must not be shorter
        _refusedWiring(mixed, address(wanted.enclaveRegistry));
        eq(create(SETTLEMENT, abi.encode(wanted)), future);
    }

    function test_TheFaultsContractKnowsTheSameRegistries() external {
        address future = futureAddress(7);
        ISettlement.Config memory wanted = config(EVERYTHING_PPM, standardTimes());
        wanted.receiptLog = IReceiptLog(create(RECEIPT_LOG, abi.encode(future)));
        wanted.gatewayRegistry = IGatewayRegistry(create(GATEWAY_REGISTRY, abi.encode(future)));
        bytes memory arguments = nodeRegistryArguments(future, futureAddress(4));
        wanted.nodeRegistry = INodeRegistry(create(NODE_REGISTRY, arguments));
        INodeRegistry twin = INodeRegistry(create(NODE_REGISTRY, arguments));
        arguments = abi.encode(manager, wanted.receiptLog, verifier, ADMIN_DELAY, EPOCH_LIFETIME);
        wanted.enclaveRegistry = IEnclaveRegistry(create(ENCLAVE_REGISTRY, arguments));
        IEnclaveRegistry enclaveTwin = IEnclaveRegistry(create(ENCLAVE_REGISTRY, arguments));
        arguments = abi.encode(future, wanted.nodeRegistry, wanted.enclaveRegistry, BENEFICIARY);
        wanted.faults = IObjectiveFaults(create(OBJECTIVE_FAULTS, arguments));

        ISettlement.Config memory mixed = _copy(wanted);
        mixed.nodeRegistry = twin;
        _refusedWiring(mixed, address(wanted.faults));
        mixed = _copy(wanted);
        mixed.enclaveRegistry = enclaveTwin;
        _refusedWiring(mixed, address(wanted.faults));
        eq(create(SETTLEMENT, abi.encode(wanted)), future);
    }

    function test_TheGuardianPausesBatchesWithinTheBound() external {
        uint40 until = uint40(block.timestamp) + 12 hours;
        vm.expectEmit(address(settlement));
        emit ISettlement.Paused(until, uint40(block.timestamp) + 7 days);
        vm.prank(GUARDIAN);
        settlement.pause(12 hours);
        eq(settlement.pausedUntil(), until);
        Batch memory batch = nextBatch("", "", 0);
        settleReverts(batch, abi.encodeWithSelector(ISettlement.SettlementPaused.selector, until));
        vm.warp(until - 1);
        settleReverts(batch, abi.encodeWithSelector(ISettlement.SettlementPaused.selector, until));
        vm.warp(until);
        settle(batch);
    }

    function test_APauseCanEndEarly() external {
        vm.startPrank(GUARDIAN);
        settlement.pause(12 hours);
        vm.expectEmit(address(settlement));
        emit ISettlement.Unpaused();
        settlement.unpause();
        vm.stopPrank();
        settle(nextBatch("", "", 0));
    }

    function test_NoLongerPauseThanTheLongest() external by(GUARDIAN) {
        reverts(abi.encodeWithSelector(ISettlement.PauseTooLong.selector, 12 hours + 1, 12 hours));
        settlement.pause(12 hours + 1);
    }

    function test_NoSecondPauseWithinTheInterval() external by(GUARDIAN) {
        settlement.pause(1);
        settlement.unpause(); // ending early does not earn another
        uint256 next = settlement.nextPauseFrom();
        eq(next, block.timestamp + 7 days);
        vm.warp(next - 1);
        reverts(abi.encodeWithSelector(ISettlement.PausedTooRecently.selector, next));
        settlement.pause(1);
        vm.warp(next);
        settlement.pause(1);
    }

    function test_OnlyTheGuardianPauses() external by(STRANGER) {
        bytes memory unauthorized = abi.encodeWithSelector(
            IAccessManaged.AccessManagedUnauthorized.selector,
            STRANGER
        );
        reverts(unauthorized);
        settlement.pause(1);
        reverts(unauthorized);
        settlement.unpause();
    }

    /// @dev Slots that proofs name; see the layouts in Settlement and EnclaveRegistry.
    function test_OutsidersFindTheDocumentedSlots() external {
        depositAndAssign(STRANGER, 77);
        settle(nextBatch("", "", 0));
        eq(vm.load(address(settlement), _slot(1, _slot(logId, 0))), settlement.anchorOf(logId, 1));
        bytes32 account = vm.load(address(settlement), _slot(uint160(STRANGER), _slot(logId, 6)));
        eq(uint96(uint256(account)), 77);
        eq(vm.load(address(settlement), _slot(uint160(STRANGER), bytes32(uint256(8)))), logId);
        bytes32 key = vm.load(address(enclaveRegistry), _slot(1, _slot(logId, 3)));
        eq(address(uint160(uint256(key))), vm.addr(ENCLAVE_KEY));
        eq(vm.load(address(enclaveRegistry), _slot(1, bytes32(uint256(4)))), MEASUREMENT);
        (address node, address wallet) = registerNode(3);
        bytes32 payout = vm.load(address(nodeRegistry), _slot(uint160(node), bytes32(uint256(5))));
        eq(address(uint160(uint256(payout))), wallet);
        token.mint(node, 9);
        vm.startPrank(node);
        token.approve(address(nodeRegistry), 9);
        nodeRegistry.bond(node, 9);
        bytes32 bond = vm.load(address(nodeRegistry), _slot(uint160(node), bytes32(uint256(3))));
        eq(bond, bytes32(abi.encodePacked(node, uint96(9))));
    }

    function construct(ISettlement.Config calldata wanted) external {
        create(SETTLEMENT, abi.encode(wanted));
    }

    function _slot(uint256 key, bytes32 mappingSlot) private pure returns (bytes32) {
        return keccak256(abi.encode(key, mappingSlot));
    }

    function _slot(bytes32 key, uint256 mappingSlot) private pure returns (bytes32) {
        return keccak256(abi.encode(key, mappingSlot));
    }

    function _copy(ISettlement.Config memory wanted) private pure returns (ISettlement.Config memory) {
        return abi.decode(abi.encode(wanted), (ISettlement.Config));
    }

    /// @dev A reverted creation undoes the nonce too, so the future address stays the same.
    function _refusedWiring(ISettlement.Config memory wanted, address target) private {
        reverts(abi.encodeWithSelector(ISettlement.WrongWiring.selector, target));
        this.construct(wanted);
    }

    function _refusedTimes(ISettlement.Times memory times) private {
        reverts(abi.encodeWithSelector(ISettlement.InvalidTimes.selector, times));
        this.construct(config(EVERYTHING_PPM, times));
    }
}
