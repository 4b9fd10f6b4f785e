"""Accepts work durably and tracks it to its end."""
