"""Files that a person names: one, or all of a directory and those below."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from application.failures import StoreError


def texts(path: str, endings: Sequence[str] = ("",)) -> Iterator[tuple[str, str]]:
    """(path, content) of a file, or of those in a directory whose names end so, in the order of
    their names; .gz is uncompressed. Raises OSError, StoreError for what is no text."""
    import gzip

    for name in _names(path, tuple(endings)) if os.path.isdir(path) else [path]:
        opened = gzip.open(name, "rb") if name.endswith(".gz") else open(name, "rb")  # noqa: SIM115
        try:
            with opened as file:
                yield name, file.read().decode()
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
            raise StoreError(f"{name} cannot be read: {error}") from None


def _names(directory: str, endings: tuple[str, ...]) -> list[str]:
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(directory)
        for name in names
        if name.endswith(endings)
    )
