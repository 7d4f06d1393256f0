"""`python -m kseg` is the command `kseg`."""

from kseg.commands.main import main

main()
