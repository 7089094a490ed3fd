"""H&E pixels painted from a synthetic tissue."""
