"""The stand-ins for AWS, and PostgreSQL, each a process of its own on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from application.failures import NotInstalled, StoreError


def sandbox_process(**options: Any) -> Any:
    """EC2's stand-in as a process of its own on loopback; a context manager with `url`.

    Raises ModuleNotFoundError where the extra `sandbox` is not installed.
    """
    import importlib

    importlib.import_module("moto")
    from infrastructure.sandbox.server import start_process

    return start_process(**options)


def dynamodb_process() -> Any:
    """DynamoDB's stand-in as a process of its own on loopback; a context manager with `url`. It
    takes any credentials."""
    from infrastructure.sandbox.server import start_dynamodb

    return start_dynamodb()


@contextmanager
def postgresql_process() -> Iterator[Any]:
    """Within: a PostgreSQL server of the system's, on directories of its own, that waits for its
    disk; `database()` makes an empty database and gives its URL. Raises NotInstalled."""
    from infrastructure.sandbox.postgresql import Server, start_server, system_binaries

    programs = system_binaries()
    if programs is None:
        raise NotInstalled(
            "no PostgreSQL server is installed here (postgres, initdb): install one, or name an "
            "empty database (--store postgresql://USER@HOST/NAME)"
        )
    try:
        with start_server(programs, fsync=True, kind=Server) as running:
            yield running
    except RuntimeError as error:
        raise StoreError(str(error)) from None
