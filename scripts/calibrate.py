"""Make a model's confidences honest."""

from kseg.commands.calibrate_command import main

if __name__ == "__main__":
    main()
