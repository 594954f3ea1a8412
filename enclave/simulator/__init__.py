"""A SIMULATED security module for networks on one machine. Attests nothing.

Its documents have the structure of real ones under a root that is made anew in every run, and say
SIMULATED in every certificate. It is an entry point of its own (`python -m enclave.simulator`):
production boot does not import it and can't be told to.
"""
