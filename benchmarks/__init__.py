"""How fast and how lean kseg is, against the ways that are usual elsewhere: scripts/benchmark.py runs it."""
