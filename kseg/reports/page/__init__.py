"""The page of a comparison: pictures beside it, styles, program and numbers inside it; it needs no network."""
