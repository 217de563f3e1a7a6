"""The provider instances that a user's operator commands know outside HostFactory's environment.

`store init` writes them down: `$XDG_CONFIG_HOME/hostledger/instances.json` (`~/.config` without
it), name -> conf_dir, work_dir, log_dir, readable by the user alone.
"""

from __future__ import annotations

import json
import os

from application.failures import NotConfigured
from infrastructure.site import Site

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PLACES = ("conf_dir", "work_dir", "log_dir")


def register_path(environ: Mapping[str, str]) -> str:
    """The register's file. XDG Base Directory Specification: a relative value does not count."""
    top = environ.get("XDG_CONFIG_HOME", "")
    if not top.startswith("/"):
        top = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(top, "hostledger", "instances.json")


def registered(environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Name -> places of every instance; {} when none was ever registered. Raises NotConfigured."""
    path = register_path(environ)
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise NotConfigured(f"{path} cannot be read: {error}; {_REPAIR}") from None
    if not isinstance(value, dict) or not all(_is_entry(entry) for entry in value.values()):
        raise NotConfigured(f"{path} is not a register of instances; {_REPAIR}")
    return value


_REPAIR = "move it away and run `hostledger store init --join PATH` for each instance"


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(place), str) for place in PLACES)


def register(environ: Mapping[str, str], site: Site) -> str:
    """Write an instance down, over what was there under its name; the register's path."""
    path = register_path(environ)
    entries = registered(environ)
    entries[site.provider] = {place: getattr(site, place) for place in PLACES}
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    unfinished = f"{path}.{os.getpid()}"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(entries, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    return path


def find(environ: Mapping[str, str], name: str | None) -> Site:
    """The instance of this name, or the only one. Raises NotConfigured, saying what is known."""
    entries = registered(environ)
    known = ", ".join(sorted(entries))
    if name is None and len(entries) == 1:
        (name,) = entries
    if name in entries:
        return Site(name, **entries[name])
    if name is not None and entries:
        raise NotConfigured(f"no provider instance {name!r} is registered; known are: {known}")
    if entries:
        raise NotConfigured(f"which provider instance? Give --provider with one of: {known}")
    raise NotConfigured(
        f"no provider instance is known{f' by the name {name!r}' if name else ''}: "
        "`hostledger store init` registers one; or set HF_PROVIDER_NAME, HF_PROVIDER_CONFDIR, "
        "HF_PROVIDER_WORKDIR and HF_PROVIDER_LOGDIR as HostFactory does"
    )
