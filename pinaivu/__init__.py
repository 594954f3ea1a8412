"""Pinaivu: LLM inference bought on an open market and proven request by request.

The core package holds what two parties must agree on byte for byte and what an outsider needs to
check a claim. Services (`coordinator`, `gateway`, `node`, `explorer`, `enclave`) import it; it
imports none of them.
"""

__version__ = "0.2.0"
