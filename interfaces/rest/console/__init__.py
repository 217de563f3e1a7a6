"""The console: pages for people, rendered by the server, over the same reads and commands."""
