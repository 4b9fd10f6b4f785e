"""The gateway, through which every client comes: identity, limits, streams and the web chat."""
