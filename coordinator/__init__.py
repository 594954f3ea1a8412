"""The coordinator: auctions jobs, meters them, signs receipts, keeps the log and settles it."""
