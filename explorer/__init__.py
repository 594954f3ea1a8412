"""The explorer: pages over chain and log on which anybody can look up and verify any request."""
