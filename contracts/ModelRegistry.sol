// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";

/// @title ModelRegistry
/// @dev Storage layout:
///   0  authority   AccessManager                                                       AccessManaged
///   1  models      model key → fingerprint; tokenizer digest; ratio, context tokens
///   2  model keys  in any order
///   3  positions   model key → position, from 1
contract ModelRegistry is IModelRegistry, AccessManaged {
    uint256 private constant MAX_ID_BYTES = 128;
    /// @dev Bit b is set where the byte b may stand in a model id: `A-Z a-z 0-9 . _ : / @ + -`.
    uint256 private immutable ID_BYTES;

    mapping(bytes32 modelKey => Model) private _models;
    bytes32[] private _modelKeys;
    mapping(bytes32 modelKey => uint256) private _positions; // in `_modelKeys`, from 1; 0: not registered

    /// @param authority AccessManager that knows the registrar.
    constructor(address authority) AccessManaged(authority) {
        ID_BYTES = _bits("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@+-");
    }

    /// @inheritdoc IModelRegistry
    function setModel(
        string calldata model,
        Model calldata entry
    ) external restricted returns (bytes32 modelKey) {
        _checkId(model);
        if (entry.fingerprint == 0 || entry.tokenizerDigest == 0 || entry.contextTokens == 0) {
            revert InvalidModel(entry);
        }
        modelKey = keccak256(bytes(model));
        _models[modelKey] = entry;
        if (_positions[modelKey] == 0) {
            _modelKeys.push(modelKey);
            _positions[modelKey] = _modelKeys.length;
        }
        emit ModelSet(
            modelKey,
            model,
            entry.fingerprint,
            entry.tokenizerDigest,
            entry.ratioPpm,
            entry.contextTokens
        );
    }

    /// @inheritdoc IModelRegistry
    function removeModel(string calldata model) external restricted {
        bytes32 modelKey = keccak256(bytes(model));
        uint256 position = _positions[modelKey];
        if (position == 0) revert UnknownModel(modelKey);
        bytes32 lastKey = _modelKeys[_modelKeys.length - 1];
        _modelKeys[position - 1] = lastKey;
        _positions[lastKey] = position;
        _modelKeys.pop();
        delete _positions[modelKey];
        delete _models[modelKey];
        emit ModelRemoved(modelKey, model);
    }

    /// @inheritdoc IModelRegistry
    function modelOf(bytes32 modelKey) external view returns (Model memory entry) {
        entry = _models[modelKey];
        if (entry.fingerprint == 0) revert UnknownModel(modelKey);
    }

    /// @inheritdoc IModelRegistry
    function modelCount() external view returns (uint256) {
        return _modelKeys.length;
    }

    /// @inheritdoc IModelRegistry
    function modelKeyAt(uint256 position) external view returns (bytes32) {
        return _modelKeys[position];
    }

    function _checkId(string calldata model) private view {
        uint256 length = bytes(model).length;
        bool fits = length != 0 && length <= MAX_ID_BYTES && _bits(model) & ~ID_BYTES == 0;
        if (!fits) revert InvalidModelId(model);
    }

    /// @dev The set of bytes that occur in `text`.
    function _bits(string memory text) private pure returns (uint256 bits) {
        bytes memory characters = bytes(text);
        for (uint256 i = 0; i < characters.length; ++i) {
            bits |= 1 << uint8(characters[i]);
        }
    }
}
