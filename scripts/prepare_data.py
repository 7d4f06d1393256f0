"""Turn a dataset into a record folder, or check one."""

from kseg.commands.prepare_command import main

if __name__ == "__main__":
    main()
