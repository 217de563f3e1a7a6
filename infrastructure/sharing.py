"""Letting a group read the store's files, and nobody write them but their owner."""

from __future__ import annotations

import os
from collections.abc import Sequence

from application.failures import BrokenConfiguration, StoreError

DIRECTORY, FILE = 0o2750, 0o640
"""The directory hands its group on to what is made in it. SQLite gives -wal and -shm the mode of
their database; a reader who may not write -shm uses it as it is, or one of its own in memory."""


def share(group: str, directories: Sequence[str], files: Sequence[str]) -> None:
    """Raises BrokenConfiguration for a group that is not there, StoreError."""
    import grp

    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise BrokenConfiguration(
            f"storage.group is {group!r}, and this machine has no such group: make it, or name "
            "another"
        ) from None
    for mode, paths in ((DIRECTORY, directories), (FILE, files)):
        for path in paths:
            try:
                os.chown(path, -1, number)
                os.chmod(path, mode)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(
                    f"{path} cannot be given to the group {group} ({error.strerror}): its owner "
                    "must be a member of it"
                ) from None
