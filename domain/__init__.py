"""What is true: aggregates, their events and the rules between them, with no I/O and no clock."""
