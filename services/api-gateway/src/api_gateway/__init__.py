"""The only door: identity, limits, streams and the web chat."""
