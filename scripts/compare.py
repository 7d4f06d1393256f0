"""Compare models on a page."""

from kseg.commands.compare_command import main

if __name__ == "__main__":
    main()
