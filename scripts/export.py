"""Write a SavedModel."""

from kseg.commands.export_command import main

if __name__ == "__main__":
    main()
