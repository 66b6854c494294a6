"""`python -m krontime` is the `krontime` command."""

from krontime.cli import main

if __name__ == "__main__":
    main()
