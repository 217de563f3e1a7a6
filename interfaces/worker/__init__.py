"""The resident process that owns AWS."""
