"""The `flotilla` command line: it speaks HTTP, and imports the fleet only to run or open one on this machine."""
