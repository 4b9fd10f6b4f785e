"""`python -m command_line`: the `flotilla` command where no script is installed."""

from command_line.commands import main

if __name__ == "__main__":
    main()
