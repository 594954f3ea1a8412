// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEnclaveRegistry} from "../../contracts/interfaces/IEnclaveRegistry.sol";
import {ILogAnchors} from "../../contracts/interfaces/ILogAnchors.sol";
import {ILogFunds} from "../../contracts/interfaces/ILogFunds.sol";
import {IPayerAccounts} from "../../contracts/interfaces/IPayerAccounts.sol";
import {ISettlement} from "../../contracts/interfaces/ISettlement.sol";
import {MerkleLog} from "../../contracts/libraries/MerkleLog.sol";
import {PackedRows} from "../../contracts/libraries/PackedRows.sol";
import {Batch} from "../../contracts/libraries/TypedData.sol";
import {Network} from "./support/Network.sol";

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @dev settle(): what moves, what is refused, and with which values.
contract SettlementBatchesTest is Network {
    address private constant ANNA = address(0xa000);
    address private constant BERT = address(0xb000);
    address private constant NODE_1 = address(0x1001);
    address private constant NODE_2 = address(0x1002);
    uint256 private constant CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    function setUp() external {
        deploy();
        depositAndAssign(ANNA, 1_000);
        depositAndAssign(BERT, 2_000);
    }

    function test_ABatchDebitsPayersCreditsNodesAndBooksTheFee() external {
        bytes memory debits = bytes.concat(row(ANNA, 100), row(BERT, 300));
        bytes memory credits = bytes.concat(row(NODE_1, 140), row(NODE_2, 240));
        settle(nextBatch(debits, credits, 20));
        eq(balanceOf(ANNA), 900);
        eq(balanceOf(BERT), 1_700);
        eq(creditOf(NODE_1), 140);
        eq(creditOf(NODE_2), 240);
        ILogFunds.LogState memory log = settlement.logStateOf(logId);
        eq(log.fees, 20);
        eq(log.sequence, 1);
        eq(log.assigned, 2_600);
    }

    function test_TheAnchorIsTheHashOfTheSixWords() external {
        settle(nextBatch("", "", 0));
        eq(settlement.anchorOf(logId, 1), keccak256(abi.encode(anchor)));
        eq(settlement.anchorOf(logId, 2), bytes32(0));
    }

    function test_TheEventCarriesWhatTheNextSubmissionNeeds() external {
        Batch memory batch = nextBatch(row(ANNA, 100), row(NODE_1, 90), 10);
        bytes memory signed = signature(ENCLAVE_KEY, digestOf(batch));
        bytes32[] memory proof = consistencyOf(batch);
        bytes32 digest = digestOf(batch);
        vm.expectEmit(address(settlement));
        emit ISettlement.BatchSettled(logId, 1, 0, 1, batch.newRoot, digest, 100, 10);
        settlement.settle(batch, signed, proof, ILogAnchors.LastAnchor(0, 0));
    }

    function test_ManyBatchesFollowEachOther() external {
        for (uint96 i = 1; i <= 12; ++i) {
            leaves.push(sha256(abi.encode("extra", i)));
            settle(nextBatch(row(ANNA, i), row(NODE_1, i), 0));
        }
        eq(creditOf(NODE_1), 78);
        eq(settlement.logStateOf(logId).sequence, 12);
    }

    function test_ABatchCannotSettleTwice() external {
        Batch memory batch = nextBatch(row(ANNA, 100), row(NODE_1, 100), 0);
        settle(batch);
        settleReverts(batch, abi.encodeWithSelector(ILogAnchors.WrongSequence.selector, logId, 2, 1));
    }

    function test_ABatchCannotBeSkipped() external {
        Batch memory batch = nextBatch("", "", 0);
        batch.sequence = 2;
        settleReverts(batch, abi.encodeWithSelector(ILogAnchors.WrongSequence.selector, logId, 1, 2));
    }

    function test_ABatchSettlesAtLeastOneLeaf() external {
        settle(nextBatch("", "", 0));
        Batch memory batch = nextBatch("", "", 0);
        (batch.newSize, batch.newRoot) = (batch.prevSize, batch.prevRoot);
        settleReverts(batch, abi.encodeWithSelector(ILogAnchors.EmptyRange.selector, 1, 1));
    }

    function test_TheFirstBatchBeginsWithTheEmptyTree() external {
        Batch memory batch = nextBatch("", "", 0);
        leaves.push(keccak256("second"));
        (batch.prevSize, batch.newSize) = (1, 2);
        settleReverts(
            batch,
            abi.encodeWithSelector(ILogAnchors.AnchorMismatch.selector, bytes32(0), bytes32(uint256(1)))
        );
        (batch.prevSize, batch.prevRoot) = (0, keccak256("other"));
        settleReverts(
            batch,
            abi.encodeWithSelector(MerkleLog.RootMismatch.selector, keccak256("other"), MerkleLog.EMPTY_ROOT)
        );
    }

    function test_EveryWordOfTheLastAnchorMustBeRight() external {
        settle(nextBatch("", "", 0));
        settle(nextBatch("", "", 0));
        Batch memory batch = nextBatch("", "", 0);
        bytes32 stored = settlement.anchorOf(logId, 2);
        ILogAnchors.Anchor memory right = anchor;

        anchor.prevSize ^= 1;
        settleReverts(batch, _mismatch(stored, anchor));
        anchor.prevSize ^= 1;
        anchor.batchDigest = keccak256("other");
        settleReverts(batch, _mismatch(stored, anchor));
        anchor = right;

        batch.prevSize -= 1;
        right.newSize -= 1;
        settleReverts(batch, _mismatch(stored, right));
        batch.prevSize += 1;
        right.newSize += 1;
        batch.prevRoot = right.newRoot = keccak256("other");
        settleReverts(batch, _mismatch(stored, right));
    }

    function test_ARewrittenHistoryIsRefused() external {
        settle(nextBatch("", "", 0));
        leaves.push(keccak256("second"));
        settle(nextBatch("", "", 0));
        bytes32 anchored = anchor.newRoot;
        leaves[0] = keccak256("another first leaf");
        Batch memory batch = nextBatch("", "", 0);
        batch.prevRoot = anchored;
        bytes memory signed = signature(ENCLAVE_KEY, digestOf(batch));
        bytes32[] memory proof = consistencyOf(batch);
        try settlement.settle(batch, signed, proof, lastAnchor()) {
            check(false);
        } catch (bytes memory reason) {
            eq(bytes32(bytes4(reason)), bytes32(MerkleLog.RootMismatch.selector));
        }
    }

    function test_OnlyTheActiveEpochsKeySigns() external {
        Batch memory batch = nextBatch("", "", 0);
        bytes32 digest = digestOf(batch);
        bytes memory signed = signature(0xbad, digest);
        reverts(
            abi.encodeWithSelector(ISettlement.WrongSigner.selector, vm.addr(ENCLAVE_KEY), vm.addr(0xbad))
        );
        settlement.settle(batch, signed, new bytes32[](0), ILogAnchors.LastAnchor(0, 0));
    }

    function test_AnEndedEpochsBatchIsRefusedAndTheNewEpochSignsTheSameSequence() external {
        Batch memory batch = nextBatch("", "", 0);
        epoch = activate(logId, 0xe2);
        settleReverts(batch, abi.encodeWithSelector(ISettlement.WrongEpoch.selector, logId, 2, 1));
        batch.epoch = 2;
        bytes memory signed = signature(0xe2, digestOf(batch));
        settlement.settle(batch, signed, new bytes32[](0), ILogAnchors.LastAnchor(0, 0));
        eq(settlement.logStateOf(logId).sequence, 1);
    }

    function test_NothingSettlesAfterExpiry() external {
        Batch memory batch = nextBatch("", "", 0);
        uint256 expiresAt = enclaveRegistry.epochOf(logId, 1).expiresAt;
        vm.warp(expiresAt);
        settleReverts(
            batch,
            abi.encodeWithSelector(IEnclaveRegistry.EpochExpired.selector, logId, 1, expiresAt)
        );
        vm.warp(expiresAt - 1);
        settle(batch);
    }

    function test_NothingSettlesAfterRevocation() external {
        Batch memory batch = nextBatch("", "", 0);
        vm.prank(GUARDIAN);
        enclaveRegistry.revokeEpoch(logId, 1);
        settleReverts(batch, abi.encodeWithSelector(IEnclaveRegistry.NoActiveEpoch.selector, logId));
    }

    function test_NothingSettlesWithRevokedCode() external {
        Batch memory batch = nextBatch("", "", 0);
        vm.prank(GUARDIAN);
        enclaveRegistry.revokePair(1);
        settleReverts(batch, abi.encodeWithSelector(IEnclaveRegistry.PairIsRevoked.selector, 1));
    }

    function test_TheSignatureIsStrict() external {
        Batch memory batch = nextBatch("", "", 0);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(ENCLAVE_KEY, digestOf(batch));
        bytes32 highS = bytes32(CURVE_ORDER - uint256(s));
        uint8 otherV = v == 27 ? 28 : 27;

        _refusedSignature(
            batch,
            bytes.concat(r, highS, bytes1(otherV)),
            abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureS.selector, highS)
        );
        _refusedSignature(
            batch,
            bytes.concat(r, s),
            abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, 64)
        );
        _refusedSignature(
            batch,
            bytes.concat(r, s, bytes1(v), hex"00"),
            abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, 66)
        );
        bytes memory invalid = abi.encodeWithSelector(ECDSA.ECDSAInvalidSignature.selector);
        _refusedSignature(batch, bytes.concat(r, s, bytes1(v - 27)), invalid);
        _refusedSignature(batch, bytes.concat(r, s, bytes1(v + 8)), invalid);
        _refusedSignature(batch, new bytes(65), invalid);
    }

    function test_EveryFieldOfTheBatchIsSigned() external {
        depositAndAssign(address(0xc000), 500);
        Batch memory batch = nextBatch(row(ANNA, 10), row(NODE_1, 9), 1);
        bytes memory signed = signature(ENCLAVE_KEY, digestOf(batch));
        Batch memory other = abi.decode(abi.encode(batch), (Batch));
        other.parties = 7;
        _refusedSigner(other, signed);
        other = abi.decode(abi.encode(batch), (Batch));
        other.statementRoot = keccak256("other");
        _refusedSigner(other, signed);
        other = abi.decode(abi.encode(batch), (Batch));
        other.timeMs += 1;
        _refusedSigner(other, signed);
        other = abi.decode(abi.encode(batch), (Batch));
        other.fees = 0;
        _refusedSigner(other, signed);
        other = abi.decode(abi.encode(batch), (Batch));
        other.debits = row(BERT, 10);
        _refusedSigner(other, signed);
        other = abi.decode(abi.encode(batch), (Batch));
        other.credits = row(NODE_2, 9);
        _refusedSigner(other, signed);
        other = abi.decode(abi.encode(batch), (Batch));
        other.newRoot = keccak256("other");
        _refusedSigner(other, signed);
    }

    function test_RowsMustBeInOrder() external {
        bytes memory debits = bytes.concat(row(BERT, 1), row(ANNA, 1));
        settleReverts(
            nextBatch(debits, row(NODE_1, 2), 0),
            abi.encodeWithSelector(PackedRows.RowsNotAscending.selector, BERT, ANNA)
        );
        settleReverts(
            nextBatch(row(ANNA, 2), bytes.concat(row(NODE_1, 1), row(NODE_1, 1)), 0),
            abi.encodeWithSelector(PackedRows.RowsNotAscending.selector, NODE_1, NODE_1)
        );
    }

    function test_DebitsMustEqualCreditsAndFees() external {
        settleReverts(
            nextBatch(row(ANNA, 100), row(NODE_1, 95), 4),
            abi.encodeWithSelector(ISettlement.UnbalancedBatch.selector, 100, 95, 4)
        );
        settleReverts(
            nextBatch(row(ANNA, 100), row(NODE_1, 97), 4),
            abi.encodeWithSelector(ISettlement.UnbalancedBatch.selector, 100, 97, 4)
        );
        settleReverts(
            nextBatch("", row(NODE_1, 1), 0),
            abi.encodeWithSelector(ISettlement.UnbalancedBatch.selector, 0, 1, 0)
        );
    }

    function test_TheFeeIsCapped() external {
        settleReverts(
            nextBatch(row(ANNA, 100), row(NODE_1, 89), 11),
            abi.encodeWithSelector(ISettlement.FeeTooHigh.selector, 11, 100)
        );
        settle(nextBatch(row(ANNA, 100), row(NODE_1, 90), 10));
    }

    function test_AShortPayersGapIsPaidByTheReserveAndBecomesItsDebt() external {
        fundReserve(500);
        Batch memory batch = nextBatch(bytes.concat(row(ANNA, 1_300), row(BERT, 100)), row(NODE_1, 1_400), 0);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.PayerShort(logId, 1, ANNA, 300, 0);
        this.settleExternally(batch);
        eq(balanceOf(ANNA), 0);
        eq(settlement.debtOf(logId, ANNA), 300);
        eq(settlement.logStateOf(logId).reserve, 200);
        eq(creditOf(NODE_1), 1_400);
        eq(settlement.logStateOf(logId).assigned, 1_900); // 1,100 were taken from deposits
    }

    function test_APayerOfAnotherLogIsShortByItsWholeRow() external {
        fundReserve(50);
        address carl = address(0xc000);
        deposit(carl, 1_000); // assigned to no log
        settle(nextBatch(row(carl, 50), row(NODE_1, 50), 0));
        eq(settlement.accountOf(0, carl).balance, 1_000);
        eq(settlement.debtOf(logId, carl), 50);
        eq(settlement.logStateOf(logId).reserve, 0);
    }

    function test_WithAShortReserveAllCreditsAndTheFeeShrinkByOneFactor() external {
        fundReserve(100);
        bytes memory debits = bytes.concat(row(ANNA, 1_500), row(BERT, 500)); // 400 found nowhere
        bytes memory credits = bytes.concat(row(NODE_1, 1_333), row(NODE_2, 567));
        Batch memory batch = nextBatch(debits, credits, 100);
        vm.expectEmit(address(settlement));
        emit IPayerAccounts.PayerShort(logId, 1, ANNA, 100, 400);
        vm.expectEmit(address(settlement));
        emit ISettlement.BatchScaledDown(logId, 1, 2_000, 1_600);
        this.settleExternally(batch);
        eq(creditOf(NODE_1), 1_066); // 1,333 · 0.8 = 1,066.4
        eq(creditOf(NODE_2), 453); // 567 · 0.8 = 453.6
        eq(settlement.logStateOf(logId).fees, 80);
        eq(settlement.logStateOf(logId).reserve, 1); // what rounding left
        eq(settlement.debtOf(logId, ANNA), 100);
    }

    function test_ABatchThatNobodyCanPayCreditsNothingAndStillSettles() external {
        address poor = address(0xc000);
        settle(nextBatch(row(poor, 700), row(NODE_1, 700), 0));
        eq(creditOf(NODE_1), 0);
        eq(settlement.debtOf(logId, poor), 0);
        eq(settlement.logStateOf(logId).sequence, 1);
    }

    function testFuzz_NothingIsCreditedUnbacked(
        uint96 a,
        uint96 b,
        uint96 reserve,
        uint96 split,
        uint96 fee
    ) external {
        (a, b) = (uint96(bound(a, 1, 1e15)), uint96(bound(b, 1, 1e15)));
        reserve = uint96(bound(reserve, 1, 1e15));
        fundReserve(reserve);
        fee = uint96(bound(fee, 0, (uint256(a) + b) / 10));
        uint96 net = a + b - fee;
        split = uint96(bound(split, 1, net));
        bytes memory credits =
            split == net ? row(NODE_1, net) : bytes.concat(row(NODE_1, split), row(NODE_2, net - split));
        settle(nextBatch(bytes.concat(row(ANNA, a), row(BERT, b)), credits, fee));
        ILogFunds.LogState memory log = settlement.logStateOf(logId);
        uint256 owed =
            uint256(balanceOf(ANNA))
                + balanceOf(BERT)
                + creditOf(NODE_1)
                + creditOf(NODE_2)
                + log.reserve
                + log.fees;
        eq(owed, token.balanceOf(address(settlement)));
        check(creditOf(NODE_1) <= split && creditOf(NODE_2) <= net - split && log.fees <= fee);
    }

    function settleExternally(Batch calldata batch) external {
        bytes memory signed = signature(ENCLAVE_KEY, digestOf(batch));
        settlement.settle(batch, signed, consistencyOf(batch), lastAnchor());
    }

    function _refusedSignature(Batch memory batch, bytes memory signed, bytes memory reason) private {
        reverts(reason);
        settlement.settle(batch, signed, new bytes32[](0), ILogAnchors.LastAnchor(0, 0));
    }

    function _refusedSigner(Batch memory batch, bytes memory signed) private {
        try settlement.settle(batch, signed, new bytes32[](0), ILogAnchors.LastAnchor(0, 0)) {
            check(false);
        } catch (bytes memory reason) {
            eq(bytes32(bytes4(reason)), bytes32(ISettlement.WrongSigner.selector));
        }
    }

    function _mismatch(bytes32 stored, ILogAnchors.Anchor memory given) private pure returns (bytes memory) {
        return
            abi.encodeWithSelector(ILogAnchors.AnchorMismatch.selector, stored, keccak256(abi.encode(given)));
    }
}
