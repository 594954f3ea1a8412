// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title What a model id means
/// @notice Binds a model id to weights, tokenizer and the ratio of its two prices. Says nothing about who
/// serves it, nor whether a node really runs it.
interface IModelRegistry {
    /// @notice A registered model.
    /// @param fingerprint Digest of the model card.
    /// @param tokenizerDigest Digest of tokenizer file and chat template.
    /// @param ratioPpm Price of a prompt token in parts per million of the price of an output token.
    /// @param contextTokens Longest prompt and output together.
    struct Model {
        bytes32 fingerprint;
        bytes32 tokenizerDigest;
        uint32 ratioPpm;
        uint32 contextTokens;
    }

    event ModelSet(
        bytes32 indexed modelKey,
        string model,
        bytes32 fingerprint,
        bytes32 tokenizerDigest,
        uint32 ratioPpm,
        uint32 contextTokens
    );
    event ModelRemoved(bytes32 indexed modelKey, string model);

    /// @notice A model id is 1 to 128 of `A-Z a-z 0-9 . _ : / @ + -`.
    error InvalidModelId(string model);
    error InvalidModel(Model entry);
    error UnknownModel(bytes32 modelKey);

    /// @notice Adds a model or replaces what its id means. By the registrar.
    function setModel(string calldata model, Model calldata entry) external returns (bytes32 modelKey);

    /// @notice Removes a model. By the registrar.
    function removeModel(string calldata model) external;

    /// @notice The model behind `modelKey = keccak256(bytes(model))`; reverts if there is none.
    function modelOf(bytes32 modelKey) external view returns (Model memory);

    /// @notice Number of registered models.
    function modelCount() external view returns (uint256);

    /// @notice Key of the model at `position`; the order changes when models are removed.
    function modelKeyAt(uint256 position) external view returns (bytes32);
}
