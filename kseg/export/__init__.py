"""The model as other runtimes take it."""
