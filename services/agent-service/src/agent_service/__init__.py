"""Runs agents: sessions, runs, models and tools."""
