"""Label images, or write and check a submission to Cityscapes."""

from kseg.commands.predict_command import main

if __name__ == "__main__":
    main()
