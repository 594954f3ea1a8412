"""Public doubles: what a test needs of Pinaivu without a network, a chain or a model.

- `bundles`: `BundleFactory` makes whole, correct, signed bundles of each of `scenarios.SCENARIOS`;
- `chain`: `ChainStandIn` answers for a chain;
- `sources`: a seeded random source, a stepping clock, a tokenizer that counts spaces.

Everything is deterministic, all signatures are real and no key is secret. Nothing here may be used
outside tests.
"""
