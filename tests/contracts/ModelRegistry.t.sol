// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IModelRegistry} from "../../contracts/interfaces/IModelRegistry.sol";
import {Network} from "./support/Network.sol";

import {IAccessManaged} from "@openzeppelin/contracts/access/manager/IAccessManaged.sol";

contract ModelRegistryTest is Network {
    string private constant MODEL = "org/model-7b@v1.0:q4_k+x";

    function setUp() external {
        deploy();
    }

    function test_TheRegistrarSetsAndReplacesAModel() external by(REGISTRAR) {
        IModelRegistry.Model memory entry = _entry();
        vm.expectEmit(address(modelRegistry));
        emit IModelRegistry.ModelSet(
            keccak256(bytes(MODEL)),
            MODEL,
            entry.fingerprint,
            entry.tokenizerDigest,
            250_000,
            8_192
        );
        eq(modelRegistry.setModel(MODEL, entry), keccak256(bytes(MODEL)));
        entry.contextTokens = 4_096;
        modelRegistry.setModel(MODEL, entry);
        IModelRegistry.Model memory found = modelRegistry.modelOf(keccak256(bytes(MODEL)));
        eq(keccak256(abi.encode(found)), keccak256(abi.encode(entry)));
        eq(modelRegistry.modelCount(), 1);
    }

    function test_RemovalKeepsTheListWhole() external by(REGISTRAR) {
        bytes32 first = modelRegistry.setModel("a", _entry());
        bytes32 second = modelRegistry.setModel("b", _entry());
        bytes32 third = modelRegistry.setModel("c", _entry());
        vm.expectEmit(address(modelRegistry));
        emit IModelRegistry.ModelRemoved(first, "a");
        modelRegistry.removeModel("a");
        eq(modelRegistry.modelCount(), 2);
        eq(modelRegistry.modelKeyAt(0), third);
        eq(modelRegistry.modelKeyAt(1), second);
        reverts(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, first));
        modelRegistry.modelOf(first);
        reverts(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, first));
        modelRegistry.removeModel("a");
        modelRegistry.removeModel("b");
        modelRegistry.removeModel("c");
        eq(modelRegistry.modelCount(), 0);
        eq(modelRegistry.setModel("a", _entry()), first);
        eq(modelRegistry.modelKeyAt(0), first);
    }

    function test_AnIdHasItsCharactersAndLength() external by(REGISTRAR) {
        string memory longest = string(new bytes(128));
        for (uint256 i = 0; i < 128; ++i) {
            bytes(longest)[i] = "z";
        }
        modelRegistry.setModel(longest, _entry());
        _refusedId("");
        _refusedId(string.concat(longest, "z"));
        _refusedId("a model");
        _refusedId(unicode"modèle");
        _refusedId("a\n");
        _refusedId("a,b");
    }

    function testFuzz_EveryByteIsJudgedAsTheSpecificationSays(bytes1 character) external by(REGISTRAR) {
        uint8 code = uint8(character);
        bool fits =
            (code >= 0x30 && code <= 0x3a)
                || (code >= 0x40 && code <= 0x5a)
                || (code >= 0x61 && code <= 0x7a)
                || character == "."
                || character == "_"
                || character == "/"
                || character == "+"
                || character == "-";
        string memory model = string(bytes.concat(character));
        if (fits) {
            modelRegistry.setModel(model, _entry());
        } else {
            _refusedId(model);
        }
    }

    function test_AModelNeedsWeightsTokenizerAndContext() external by(REGISTRAR) {
        IModelRegistry.Model memory entry = _entry();
        entry.fingerprint = 0;
        _refusedEntry(entry);
        entry = _entry();
        entry.tokenizerDigest = 0;
        _refusedEntry(entry);
        entry = _entry();
        entry.contextTokens = 0;
        _refusedEntry(entry);
    }

    function test_OnlyTheRegistrarWrites() external by(STRANGER) {
        bytes memory unauthorized = abi.encodeWithSelector(
            IAccessManaged.AccessManagedUnauthorized.selector,
            STRANGER
        );
        reverts(unauthorized);
        modelRegistry.setModel(MODEL, _entry());
        reverts(unauthorized);
        modelRegistry.removeModel(MODEL);
    }

    function _entry() private pure returns (IModelRegistry.Model memory) {
        return IModelRegistry.Model(keccak256("fingerprint"), keccak256("tokenizer"), 250_000, 8_192);
    }

    function _refusedId(string memory model) private {
        reverts(abi.encodeWithSelector(IModelRegistry.InvalidModelId.selector, model));
        modelRegistry.setModel(model, _entry());
    }

    function _refusedEntry(IModelRegistry.Model memory entry) private {
        reverts(abi.encodeWithSelector(IModelRegistry.InvalidModel.selector, entry));
        modelRegistry.setModel(MODEL, entry);
    }
}
