"""What AWS would say to the calls of a plan, asked without making them.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/CommonParameters.html (DryRun)
"""

from __future__ import annotations

from typing import Any

from application.ports import CallFailed, Planned
from domain.capacity import CREATE_GROUP, RUN_INSTANCES
from infrastructure.aws import launch_templates
from infrastructure.aws.client import Connection
from infrastructure.aws.errors import NOT_ALLOWED
from infrastructure.aws.user_data import with_user_data

PASSED = "DryRunOperation"


def dry_run(connection: Connection, planned: Planned) -> list[tuple[str, str]]:
    """Each call with "would succeed", "not authorized: ...", "refused: ..." or "has no dry run".
    Raises CallFailed when AWS cannot be asked."""
    result = []
    if planned.launch_template is not None:
        parameters = launch_templates.sent(planned.launch_template, planned.user_data)
        result.append(
            ("CreateLaunchTemplate", _ask(connection, "CreateLaunchTemplate", parameters))
        )
    if planned.api == CREATE_GROUP:
        result.append((planned.api, "has no dry run"))
        return result
    parameters = planned.payload
    if planned.api == RUN_INSTANCES:
        parameters = with_user_data(parameters, planned.user_data)
    result.append((planned.api, _ask(connection, planned.api, parameters)))
    return result


def _ask(connection: Connection, api: str, parameters: dict[str, Any]) -> str:
    try:
        connection.call(api, {**parameters, "DryRun": True})
    except CallFailed as failed:
        if failed.code == PASSED:
            return "would succeed"
        if failed.code in NOT_ALLOWED:
            return f"not authorized: {failed.message}"
        if failed.kind == "template_gone":
            return "not known: its launch template is not there yet"
        if failed.kind in ("throttled", "ambiguous", "unreachable"):
            raise
        return f"refused: {failed}"
    raise CallFailed("refused", "NoDryRun", f"{api} was carried out although it was a dry run")
