"""Training: kseg.train."""
