"""Keeps the explorer's database level with log and chain, checking as it goes.

`log_follower` takes in leaves only under a verified checkpoint, `batches` recomputes what each
batch settles, `chain_follower` keeps the contracts' events. What is wrong is stored as wrong, in
words; what can't be asked is a fault that the pages show and the next look may lift.

    python -m explorer.indexer --config explorer.json
"""
