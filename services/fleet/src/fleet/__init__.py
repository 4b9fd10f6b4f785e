"""Every Flotilla service in one process, and the flotilla command line."""
