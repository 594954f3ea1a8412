// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAttestationVerifier} from "../../contracts/interfaces/IAttestationVerifier.sol";
import {IEnclaveRegistry} from "../../contracts/interfaces/IEnclaveRegistry.sol";
import {Verdict} from "../../contracts/libraries/TypedData.sol";
import {SimulatedAttestationVerifier} from "../../contracts/mocks/SimulatedAttestationVerifier.sol";
import {Network} from "./support/Network.sol";

import {IAccessManaged} from "@openzeppelin/contracts/access/manager/IAccessManaged.sol";

/// @dev In the place of the EIP-2935 contract: knows the blocks from 500 on, by a made-up hash.
contract HistoryDouble {
    error TooOld(uint256 number);

    fallback(bytes calldata data) external returns (bytes memory) {
        uint256 number = abi.decode(data, (uint256));
        if (number < 500) revert TooOld(number);
        return abi.encode(keccak256(abi.encode(number)));
    }
}

/// @dev NOT a verifier: believes whatever document and manifest hash to the verdict's digests, so it shows
/// only that evidence of another kind than signatures, and a check that keeps something, fit the interface.
contract UncheckedDocumentVerifierDouble is IAttestationVerifier {
    uint256 public documentsSeen;

    error WrongDigest(bytes32 expected, bytes32 given);

    function check(Verdict calldata verdict, bytes calldata evidence) external {
        (bytes memory payload, bytes memory manifest) = abi.decode(evidence, (bytes, bytes));
        _match(verdict.payloadDigest, sha256(payload));
        _match(verdict.manifestDigest, sha256(bytes.concat(bytes16("pnv1:manifest"), manifest)));
        ++documentsSeen;
    }

    function description() external pure returns (string memory) {
        return "SIMULATED: compares digests, checks no signature";
    }

    function changeDelay() external pure returns (uint32) {
        return type(uint32).max;
    }

    function _match(bytes32 expected, bytes32 given) private pure {
        if (expected != given) revert WrongDigest(expected, given);
    }
}

/// @dev Pairs, verifiers, epochs. The fixture has allowed pair 1 and started epoch 1.
contract EnclaveRegistryTest is Network {
    bytes32 private constant OTHER = keccak256("other measurement");
    uint256 private constant NEXT_KEY = 0xe2;
    address private constant BLOCK_HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;

    function setUp() external {
        deploy();
    }

    function test_APairIsAllowedAfterTheDelay() external {
        uint40 allowedFrom = uint40(block.timestamp) + ADMIN_DELAY;
        vm.expectEmit(address(enclaveRegistry));
        emit IEnclaveRegistry.PairProposed(2, OTHER, PARAMETERS, allowedFrom);
        vm.prank(ADMIN);
        eq(enclaveRegistry.proposePair(OTHER, PARAMETERS), 2);
        eq(enclaveRegistry.pairIndexOf(OTHER, PARAMETERS), 2);

        vm.warp(allowedFrom - 1);
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        verdict.measurement = OTHER;
        _refused(
            verdict,
            abi.encodeWithSelector(IEnclaveRegistry.PairNotAllowedYet.selector, 2, allowedFrom)
        );
        vm.warp(allowedFrom);
        _activate(verdict);
        eq(enclaveRegistry.epochOf(logId, 2).pair, 2);
    }

    function test_ThePairIsMeasurementAndParametersTogether() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        verdict.parametersDigest = OTHER;
        _refused(verdict, abi.encodeWithSelector(IEnclaveRegistry.UnknownPair.selector, MEASUREMENT, OTHER));
    }

    function test_APairIsProposedOnce() external by(ADMIN) {
        reverts(abi.encodeWithSelector(IEnclaveRegistry.PairAlreadyProposed.selector, 1));
        enclaveRegistry.proposePair(MEASUREMENT, PARAMETERS);
    }

    function test_DebugModeIsNeverAllowed() external by(ADMIN) {
        bytes32 debug = sha256(abi.encodePacked(bytes16("pnv1:pcr"), new bytes(144)));
        reverts(IEnclaveRegistry.DebugMeasurement.selector);
        enclaveRegistry.proposePair(debug, PARAMETERS);
    }

    function test_ARevokedPairStartsNoEpochAndEndsThoseRunning() external {
        vm.expectEmit(address(enclaveRegistry));
        emit IEnclaveRegistry.PairRevoked(1);
        vm.prank(GUARDIAN);
        enclaveRegistry.revokePair(1);
        eq(enclaveRegistry.pairOf(1).revokedAt, block.timestamp);
        bytes memory revoked = abi.encodeWithSelector(IEnclaveRegistry.PairIsRevoked.selector, 1);
        _refused(verdictFor(logId, NEXT_KEY), revoked);
        reverts(revoked);
        enclaveRegistry.activeEpochOf(logId);
        reverts(revoked);
        vm.prank(GUARDIAN);
        enclaveRegistry.revokePair(1);
    }

    function test_ARevokedPairComesBackUnderANewIndexAfterTheDelay() external {
        vm.prank(GUARDIAN);
        enclaveRegistry.revokePair(1);
        vm.prank(ADMIN);
        eq(enclaveRegistry.proposePair(MEASUREMENT, PARAMETERS), 2);
        vm.warp(block.timestamp + ADMIN_DELAY);
        eq(_activate(verdictFor(logId, NEXT_KEY)), 2);
        reverts(abi.encodeWithSelector(IEnclaveRegistry.UnknownPairIndex.selector, 3));
        vm.prank(GUARDIAN);
        enclaveRegistry.revokePair(3);
    }

    function test_RolesAreKept() external by(STRANGER) {
        bytes memory unauthorized = abi.encodeWithSelector(
            IAccessManaged.AccessManagedUnauthorized.selector,
            STRANGER
        );
        reverts(unauthorized);
        enclaveRegistry.proposePair(OTHER, PARAMETERS);
        reverts(unauthorized);
        enclaveRegistry.revokePair(1);
        reverts(unauthorized);
        enclaveRegistry.proposeVerifier(verifier);
        reverts(unauthorized);
        enclaveRegistry.revokeEpoch(logId, 1);
    }

    function test_AnEpochIsRecordedWithItsDocument() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        uint40 expiresAt = uint40(block.timestamp) + EPOCH_LIFETIME;
        vm.expectEmit(address(enclaveRegistry));
        emit IEnclaveRegistry.EpochActivated(
            logId,
            2,
            verdict.key,
            1,
            verdict.manifestDigest,
            verdict.payloadDigest,
            verdict.blockNumber,
            verdict.documentMs,
            expiresAt
        );
        eq(_activate(verdict), 2);
        IEnclaveRegistry.Epoch memory record = enclaveRegistry.epochOf(logId, 2);
        eq(record.key, verdict.key);
        eq(record.activatedAt, block.timestamp);
        eq(record.expiresAt, expiresAt);
        eq(record.revokedAt, 0);
        eq(record.blockNumber, verdict.blockNumber);
        eq(record.documentMs, verdict.documentMs);
        eq(record.manifestDigest, verdict.manifestDigest);
        eq(record.payloadDigest, verdict.payloadDigest);
        (address key, uint64 active) = enclaveRegistry.activeEpochOf(logId);
        eq(key, verdict.key);
        eq(active, 2);
        eq(enclaveRegistry.epochCountOf(logId), 2);
    }

    function test_OnlyTheLogsOperatorActivates() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        bytes memory evidence = evidenceFor(verdict);
        reverts(abi.encodeWithSelector(IEnclaveRegistry.NotOperator.selector, logId, STRANGER));
        vm.prank(STRANGER);
        enclaveRegistry.activate(verdict, evidence);
    }

    function test_AVerdictIsForOneLog() external {
        bytes32 other = openLog(STRANGER);
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        bytes memory evidence = evidenceFor(verdict);
        verdict.logId = other;
        try this.activateAs(STRANGER, verdict, evidence) {
            check(false);
        } catch (bytes memory reason) {
            eq(bytes32(bytes4(reason)), bytes32(SimulatedAttestationVerifier.WrongSimulator.selector));
        }
    }

    function test_AKeyIsActivatedOncePerLog() external {
        _refused(
            verdictFor(logId, ENCLAVE_KEY),
            abi.encodeWithSelector(IEnclaveRegistry.KeyAlreadyUsed.selector, logId, vm.addr(ENCLAVE_KEY))
        );
    }

    function test_TheZeroKeyIsRefused() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        verdict.key = address(0);
        _refused(verdict, abi.encodeWithSelector(IEnclaveRegistry.ZeroKey.selector));
    }

    function test_AVerdictExpires() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        verdict.expiresMs = uint64(block.timestamp * 1000);
        _refused(
            verdict,
            abi.encodeWithSelector(
                IEnclaveRegistry.VerdictExpired.selector,
                verdict.expiresMs,
                verdict.expiresMs
            )
        );
        verdict.expiresMs += 1;
        _activate(verdict);
    }

    function test_TheDocumentsTimeFitsTheBlocks() external {
        uint64 nowMs = uint64(block.timestamp * 1000);
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        verdict.documentMs = nowMs + 120_001;
        _refused(verdict, _outOfTime(verdict.documentMs, nowMs));
        verdict.documentMs = nowMs + 120_000;
        _activate(verdict);
        verdict = verdictFor(logId, NEXT_KEY + 1);
        verdict.documentMs = nowMs - 10_800_001;
        _refused(verdict, _outOfTime(verdict.documentMs, nowMs));
        verdict.documentMs = nowMs - 10_800_000;
        _activate(verdict);
        verdict = verdictFor(logId, NEXT_KEY + 2);
        verdict.documentMs = type(uint64).max;
        _refused(verdict, _outOfTime(type(uint64).max, nowMs));
    }

    /// @dev Its verifiers may have let it last for ever: the document does not.
    function test_AnEternalVerdictEndsWithItsDocument() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        verdict.expiresMs = type(uint64).max;
        vm.warp(block.timestamp + 3 hours);
        _refused(verdict, _outOfTime(verdict.documentMs, block.timestamp * 1000));
    }

    function test_TheDocumentsBlockMustBeTheChains() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        bytes32 actual = verdict.blockHash;
        verdict.blockHash = keccak256("other chain");
        _refused(verdict, _mismatch(verdict, actual));
        verdict.blockNumber = uint64(block.number + 5);
        _refused(verdict, _mismatch(verdict, 0));
        verdict.blockNumber = uint64(block.number);
        _refused(verdict, _mismatch(verdict, 0));
        verdict.blockHash = 0; // an unknown block's hash is not zero
        _refused(verdict, _mismatch(verdict, 0));
    }

    function test_OldBlocksAreLookedUpInTheHistoryContract() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        verdict.blockNumber = 500;
        verdict.blockHash = keccak256(abi.encode(uint256(500)));
        vm.etch(BLOCK_HISTORY, type(HistoryDouble).runtimeCode);
        _activate(verdict);
        verdict = verdictFor(logId, NEXT_KEY + 1);
        (verdict.blockNumber, verdict.blockHash) = (499, keccak256(abi.encode(uint256(499))));
        _refused(verdict, _mismatch(verdict, 0)); // its revert data is no hash
    }

    function test_TheVerifierMustBeConvinced() external {
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        bytes memory evidence = evidenceFor(verdict);
        verdict.manifestDigest = keccak256("other manifest");
        try this.activateAs(OPERATOR, verdict, evidence) {
            check(false);
        } catch (bytes memory reason) {
            eq(bytes32(bytes4(reason)), bytes32(SimulatedAttestationVerifier.WrongSimulator.selector));
        }
        eq(enclaveRegistry.epochCountOf(logId), 1);
    }

    function test_AnotherVerifierTakesTheDelay() external {
        IAttestationVerifier next = new SimulatedAttestationVerifier(
            address(settlement),
            vm.addr(SIMULATOR_KEY + 1)
        );
        uint40 effectiveAt = uint40(block.timestamp) + ADMIN_DELAY;
        vm.expectEmit(address(enclaveRegistry));
        emit IEnclaveRegistry.VerifierProposed(next, effectiveAt);
        vm.prank(ADMIN);
        enclaveRegistry.proposeVerifier(next);
        vm.warp(effectiveAt - 1);
        eq(address(enclaveRegistry.verifier()), address(verifier));
        (IAttestationVerifier waiting, uint40 from) = enclaveRegistry.pendingVerifier();
        eq(address(waiting), address(next));
        eq(from, effectiveAt);
        vm.warp(effectiveAt);
        eq(address(enclaveRegistry.verifier()), address(next));
        (waiting, from) = enclaveRegistry.pendingVerifier();
        eq(address(waiting), address(0));
        vm.startPrank(ADMIN);
        enclaveRegistry.proposeVerifier(verifier); // a matured one stays while the next waits
        eq(address(enclaveRegistry.verifier()), address(next));
        reverts(IEnclaveRegistry.ZeroVerifier.selector);
        enclaveRegistry.proposeVerifier(IAttestationVerifier(address(0)));
    }

    function test_AVerifierWithAnotherKindOfEvidenceFits() external {
        UncheckedDocumentVerifierDouble double = new UncheckedDocumentVerifierDouble();
        vm.prank(ADMIN);
        enclaveRegistry.proposeVerifier(double);
        vm.warp(block.timestamp + ADMIN_DELAY);
        bytes memory payload = new bytes(4_500);
        bytes memory manifest = "{}";
        Verdict memory verdict = verdictFor(logId, NEXT_KEY);
        verdict.payloadDigest = sha256(payload);
        verdict.manifestDigest = sha256(bytes.concat(bytes16("pnv1:manifest"), manifest));
        vm.prank(OPERATOR);
        eq(enclaveRegistry.activate(verdict, abi.encode(payload, manifest)), 2);
        eq(double.documentsSeen(), 1);
        verdict = verdictFor(logId, NEXT_KEY + 1);
        reverts(
            abi.encodeWithSelector(
                UncheckedDocumentVerifierDouble.WrongDigest.selector,
                verdict.payloadDigest,
                sha256(payload)
            )
        );
        vm.prank(OPERATOR);
        enclaveRegistry.activate(verdict, abi.encode(payload, manifest));
    }

    function test_TheGuardianRevokesAnEpoch() external {
        vm.expectEmit(address(enclaveRegistry));
        emit IEnclaveRegistry.EpochRevoked(logId, 1, false);
        vm.prank(GUARDIAN);
        enclaveRegistry.revokeEpoch(logId, 1);
        eq(enclaveRegistry.epochOf(logId, 1).revokedAt, block.timestamp);
        reverts(abi.encodeWithSelector(IEnclaveRegistry.NoActiveEpoch.selector, logId));
        enclaveRegistry.activeEpochOf(logId);
        reverts(abi.encodeWithSelector(IEnclaveRegistry.EpochAlreadyRevoked.selector, logId, 1));
        vm.prank(GUARDIAN);
        enclaveRegistry.revokeEpoch(logId, 1);
        eq(_activate(verdictFor(logId, NEXT_KEY)), 2); // numbers go on
    }

    function test_AnOperatorRevokesItsOwnEpochOnly() external {
        reverts(abi.encodeWithSelector(IEnclaveRegistry.NotOperator.selector, logId, STRANGER));
        vm.prank(STRANGER);
        enclaveRegistry.revokeOwnEpoch(logId, 1);
        vm.expectEmit(address(enclaveRegistry));
        emit IEnclaveRegistry.EpochRevoked(logId, 1, true);
        vm.prank(OPERATOR);
        enclaveRegistry.revokeOwnEpoch(logId, 1);
    }

    function test_RevokingAnEndedEpochLeavesTheActiveOne() external {
        _activate(verdictFor(logId, NEXT_KEY));
        vm.prank(GUARDIAN);
        enclaveRegistry.revokeEpoch(logId, 1);
        (, uint64 active) = enclaveRegistry.activeEpochOf(logId);
        eq(active, 2);
        eq(enclaveRegistry.epochOf(logId, 1).revokedAt, block.timestamp);
    }

    function test_UnknownEpochsAreSaidSo() external {
        reverts(abi.encodeWithSelector(IEnclaveRegistry.UnknownEpoch.selector, logId, 2));
        enclaveRegistry.epochOf(logId, 2);
        reverts(abi.encodeWithSelector(IEnclaveRegistry.UnknownEpoch.selector, logId, 2));
        vm.prank(GUARDIAN);
        enclaveRegistry.revokeEpoch(logId, 2);
        bytes32 other = openLog(STRANGER);
        reverts(abi.encodeWithSelector(IEnclaveRegistry.NoActiveEpoch.selector, other));
        enclaveRegistry.activeEpochOf(other);
    }

    function test_AnEpochExpires() external {
        uint256 expiresAt = enclaveRegistry.epochOf(logId, 1).expiresAt;
        vm.warp(expiresAt - 1);
        enclaveRegistry.activeEpochOf(logId);
        vm.warp(expiresAt);
        reverts(abi.encodeWithSelector(IEnclaveRegistry.EpochExpired.selector, logId, 1, expiresAt));
        enclaveRegistry.activeEpochOf(logId);
    }

    function test_TheSimulatorSaysWhatItIs() external view {
        bytes memory description = bytes(verifier.description());
        bytes memory first = new bytes(9);
        for (uint256 i = 0; i < 9; ++i) {
            first[i] = description[i];
        }
        eq(string(first), "SIMULATED");
    }

    function test_TheSimulatorCannotChange() external view {
        eq(verifier.changeDelay(), type(uint32).max);
    }

    function test_TheSimulatorRefusesKnownChains() external {
        uint64[10] memory chains = [
            uint64(1), // Ethereum
            10, // OP Mainnet
            56, // BNB Smart Chain
            100, // Gnosis
            137, // Polygon
            8_453, // Base
            17_000, // Holesky
            42_161, // Arbitrum One
            84_532, // Base Sepolia
            11_155_111 // Sepolia
        ];
        for (uint256 i = 0; i < chains.length; ++i) {
            vm.chainId(chains[i]);
            reverts(
                abi.encodeWithSelector(SimulatedAttestationVerifier.OnlyOnLocalChains.selector, chains[i])
            );
            new SimulatedAttestationVerifier(address(settlement), STRANGER);
        }
    }

    /// @dev Every batch asks this: one packed slot, and one word of the pair, whose revocation ends all
    /// of its epochs at once. What a first call costs more than a second is the cold account and slots.
    function test_AskingForTheActiveEpochReadsTwoSlots() external view {
        bytes memory question = abi.encodeCall(enclaveRegistry.activeEpochOf, (logId));
        uint256 cold = _gasOf(address(enclaveRegistry), question);
        uint256 warm = _gasOf(address(enclaveRegistry), question);
        eq(cold - warm, (2_600 - 100) + 2 * (2_100 - 100));
        check(warm < 800);
    }

    function testFuzz_TheSimulatorRefusesEveryRealChain(uint64 chain) external {
        vm.assume(chain != 31_337 && chain != 1_337);
        vm.chainId(chain);
        reverts(abi.encodeWithSelector(SimulatedAttestationVerifier.OnlyOnLocalChains.selector, chain));
        new SimulatedAttestationVerifier(address(settlement), STRANGER);
    }

    function activateAs(address sender, Verdict calldata verdict, bytes calldata evidence) external {
        vm.prank(sender);
        enclaveRegistry.activate(verdict, evidence);
    }

    function _activate(Verdict memory verdict) private returns (uint64) {
        bytes memory evidence = evidenceFor(verdict);
        vm.prank(OPERATOR);
        return enclaveRegistry.activate(verdict, evidence);
    }

    function _refused(Verdict memory verdict, bytes memory reason) private {
        bytes memory evidence = evidenceFor(verdict);
        reverts(reason);
        vm.prank(OPERATOR);
        enclaveRegistry.activate(verdict, evidence);
    }

    function _gasOf(address target, bytes memory question) private view returns (uint256 used) {
        assembly ("memory-safe") {
            used := gas()
            pop(staticcall(gas(), target, add(question, 32), mload(question), 0, 0))
            used := sub(used, gas())
        }
    }

    function _outOfTime(uint64 documentMs, uint256 nowMs) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IEnclaveRegistry.DocumentOutOfTime.selector, documentMs, nowMs);
    }

    function _mismatch(Verdict memory verdict, bytes32 actual) private pure returns (bytes memory) {
        return
            abi.encodeWithSelector(
                IEnclaveRegistry.BlockHashMismatch.selector,
                verdict.blockNumber,
                verdict.blockHash,
                actual
            );
    }
}
