"""The EVM chain, seen from Python: reads, writes, events, deployment and a local development chain.

Everything here is synchronous; services call it in worker threads. Reads go through
`ChainClient`, transactions through one `Transactor` per key, history through `Follower`. Addresses
are 20 raw bytes, words 32, amounts integers in base units. No private key is kept by an endpoint:
transactions are signed here.

Nothing in this package decides what to settle, whom to pay or which key to trust.
"""
