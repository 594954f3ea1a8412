"""The node: offers an engine on the market, executes awarded jobs and signs what it did."""
