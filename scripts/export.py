"""Write a model for other programs."""

from kseg.commands.export_command import main

if __name__ == "__main__":
    main()
