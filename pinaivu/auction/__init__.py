"""The auction rule and its transcript: integers only, rerun by anyone from published bytes.

`rule` scores, ranks and clears; `transcript` holds the byte layouts and their Merkle roots;
`replay` checks a published transcript against job, grant, awards and receipt; `placing` says how
each node did in it, `omitted` what one book shows about another.
"""
