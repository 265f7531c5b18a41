"""``python -m sevplug``: the command line without the console script."""

from sevplug.cli import main

if __name__ == "__main__":
    main()
