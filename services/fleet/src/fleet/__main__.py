"""Start the command line as `python -m fleet`; installed, it is called `flotilla`."""

from fleet.cli import main

if __name__ == "__main__":
    main()
