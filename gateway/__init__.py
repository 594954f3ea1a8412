"""The gateway: an OpenAI-compatible HTTP surface in front of the market."""
