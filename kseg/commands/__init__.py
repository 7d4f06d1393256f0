"""The commands of scripts/: one module each, flags -> keyword arguments -> one call. Only here absl is imported."""
