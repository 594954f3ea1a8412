"""The pages, one module each; every one is a function of a `Site` and the query parameters."""
