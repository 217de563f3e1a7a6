"""A site's configuration: what another file would make of it, and what AWS says of its types."""

from __future__ import annotations

from typing import Any

from application.failures import BrokenConfiguration
from infrastructure.site import Site
from interfaces.write_side import parts
from interfaces.write_side.container import WriteSide


def settings_of(site: Site, environ: Any, path: str) -> tuple[dict[str, Any], list[str]]:
    """The settings that another configuration file would give in place of the site's own, and what
    is doubtful about them. Raises BrokenConfiguration."""
    from infrastructure.compiled import sources
    from infrastructure.configuration import ConfigurationProblem, read_settings

    (_, ibm, _), _ = sources(site, environ)
    try:
        settings, warnings = read_settings(path, ibm, environ)
    except ConfigurationProblem as problem:
        raise BrokenConfiguration(str(problem)) from None
    return settings.model_dump(mode="json"), warnings


def learn_types(side: WriteSide, names: list[str]) -> Any:
    """Ask AWS about instance types, by the first account, and keep what it says: `facts`, `changed`
    and `unknown`.

    Raises CallFailed, OSError.
    """
    from infrastructure.templates.instance_types import learn_types, types_file

    describe = parts.first(side.clouds()).instance_types
    return learn_types(types_file(side.site().state_dir), names, describe)
