"""The append-only event store, one module per technology."""
