"""Contestants that kseg did not make: models of any format through their own runtime, and folders of label maps."""
