"""Score a model, or audit published scores."""

from kseg.commands.evaluate_command import main

if __name__ == "__main__":
    main()
