"""Suites and the runner that scores them, offline and online alike."""
