"""Which client can do what: the official SDKs against the whole real path, feature by feature."""
