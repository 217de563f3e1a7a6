"""The program's version: in the first event, in the lease, in `--version`."""

VERSION = "0.1.0"
