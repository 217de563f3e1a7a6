"""What is told about the running product: the journal."""
