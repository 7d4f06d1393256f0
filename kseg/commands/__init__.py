"""The commands of scripts/: one module each, flags -> keyword arguments -> one call. absl is imported only here."""
