"""Compare models over several seeds."""

from kseg.commands.study_command import main

if __name__ == "__main__":
    main()
