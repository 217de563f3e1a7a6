"""With what: one folder per technology, implementing the application's ports."""
