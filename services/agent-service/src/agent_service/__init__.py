"""Thinks: sessions, runs, models and tools."""
