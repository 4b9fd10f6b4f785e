"""The `flotilla` command line: most commands speak HTTP; some run or open a fleet on this machine."""
