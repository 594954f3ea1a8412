"""A whole network on this machine: chain, coordinator, gateway, nodes and explorer as processes.

Everything is real but the attestation, which is SIMULATED, and the money, which is play money on a
local chain. State lies in one folder; starting again goes on where it ended.
"""
