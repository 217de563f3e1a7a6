"""For whom: parse what came in, call one use case, print the answer."""
