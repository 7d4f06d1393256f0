"""Train, evaluate and export a model."""

from kseg.commands.train_command import main

if __name__ == "__main__":
    main()
