"""The HTTP side: routes, and what they share. It judges requests and shows results."""
