"""The read models, one module per technology."""
