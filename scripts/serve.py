"""Serve a model over HTTP."""

from kseg.commands.serve_command import main

if __name__ == "__main__":
    main()
