"""Studies: several models, each trained with several seeds, and what can be said about their differences."""
