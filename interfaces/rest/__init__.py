"""The server: queries, commands, the stream of events and the console over HTTP."""
