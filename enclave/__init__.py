"""The enclave: boot, attestation and manifest of a coordinator; the simulator stands apart."""
