"""The plan of an epoch, and what executes its rows."""
