"""The program `consilium`: the command line, and a word where Ctrl-C comes before it is there."""

import sys

# What a shell knows of a command that Ctrl-C has ended.
INTERRUPTED = 130


def main() -> None:
    """Run the command line; what it is made of is imported here."""
    try:
        from flows.cli import main as command_line
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    command_line()


if __name__ == "__main__":
    main()
