"""Policy: a launch template is there when a launch needs it, and goes when nothing uses it."""

from __future__ import annotations

from typing import Any

from application.backoff import Backoff, Seldom
from application.ports import CallFailed, Planned
from application.turn import Turn
from domain.identifiers import launch_token
from domain.launch_template import CREATED, DELETING, OPEN, LaunchTemplate

FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0

UNUSED_FOR = 600.0
"""Seconds after which a launch template that nothing uses is removed although requests are open,
which may want it."""

COMPARED_EVERY = 3600.0
"""Seconds between two looks for launch templates, and for fleets and groups, that were made late,
by a worker that was paused before its call: another has made the same one, or given it up, and
removed it since."""

STRAYS = "strays"
"""What is backed off from when AWS does not list them; beside the keys of those that are known."""


class LaunchTemplates:
    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._backoff = Backoff(turn, FIRST_RETRY, LONGEST_RETRY, "launch template")
        # Restored from a backup, the log may never have heard of some.
        self._is_restored = turn.incarnation > 1
        place = f"{turn.cloud.account}/{turn.cloud.region}"
        self._comparing = Seldom(
            turn, f"launch templates of {place}", COMPARED_EVERY, at_once=self._is_restored
        )

    def ensure(self, planned: Planned, request: dict[str, Any]) -> str | None:
        """The name of the plan's launch template, made when it is not there; "" when the plan needs
        none, None when it cannot be made just now.

        Raises CallFailed when AWS refuses it, LeaseLost.
        """
        if planned.launch_template is None:
            return ""
        turn = self._turn
        name: str = planned.launch_template["LaunchTemplateName"]
        key = LaunchTemplate.key(turn.cloud.account, turn.cloud.region, name)
        template = turn.ledger.get(LaunchTemplate, key) or LaunchTemplate(
            LaunchTemplate.stream(key)
        )
        if template.state == CREATED:
            return name
        if template.state == DELETING or not self._backoff.admits(key):
            return None
        if template.state != OPEN:
            self._intend(template, planned, name, request)
        row = turn.work.launch_template(key)
        assert row is not None
        return name if self._create(row, planned.user_data) else None

    def _intend(
        self, template: LaunchTemplate, planned: Planned, name: str, request: dict[str, Any]
    ) -> None:
        turn = self._turn
        payload = planned.launch_template
        assert payload is not None
        account, region = turn.cloud.account, turn.cloud.region
        template.intend(
            name=name,
            token=launch_token(
                turn.deployment, turn.incarnation, account, region, "", name, template.epoch + 1
            ),
            payload=payload,
            account=account,
            region=region,
            provider=request["provider"],
        )
        turn.must_outlive_call()
        bodies = None
        if planned.user_data is not None:
            bodies = {payload["LaunchTemplateData"]["UserData"]["sha256"]: planned.user_data}
        turn.save(
            template,
            correlation_id=request["correlation_id"],
            causation_id=request["event_id"],
            bodies=bodies,
        )

    def _create(self, row: dict[str, Any], user_data: bytes | None) -> bool:
        """Make the call of an intent, and record its outcome. Raises CallFailed when refused."""
        turn = self._turn
        turn.must_outlive_call()
        try:
            launch_template_id = turn.cloud.create_launch_template(
                row["payload"], row["token"], user_data
            )
        except CallFailed as failed:
            if failed.kind in ("throttled", "unreachable", "ambiguous"):
                self._backoff.failed(row["template_key"])
                return False
            self._record(row, failed)
            raise
        self._backoff.succeeded(row["template_key"])
        self._record(row, launch_template_id)
        return True

    def _record(self, row: dict[str, Any], outcome: str | CallFailed) -> None:
        template = self._turn.ledger.get(LaunchTemplate, row["template_key"])
        assert template is not None
        if isinstance(outcome, CallFailed):
            template.reject(outcome.code, outcome.message)
        else:
            template.create(outcome)
        self._turn.save(
            template, correlation_id=row["correlation_id"], causation_id=row["event_id"]
        )

    def miss(self, name: str) -> LaunchTemplate | None:
        """The launch template of this name, which AWS does not know any more; to be saved."""
        turn = self._turn
        key = LaunchTemplate.key(turn.cloud.account, turn.cloud.region, name)
        template = turn.ledger.get(LaunchTemplate, key)
        if template is not None:
            template.miss()
        return template

    # -- the end ----------------------------------------------------------------------------------

    def take_turn(self) -> None:
        """Remove what nothing uses, the others wait for. Raises LeaseLost."""
        turn = self._turn
        if self._comparing.is_due() and not turn.paused():
            self._remove_strays()
        rows = [row for row in turn.work.launch_templates() if not row["used"]]
        if not rows or turn.paused():
            return
        wanted = bool(turn.work.open_requests())
        for row in rows:
            if not self._backoff.admits(row["template_key"]):
                continue
            if wanted and row["state"] != "deleting" and turn.age(row) < UNUSED_FOR:
                continue
            self._remove(row)

    def _remove_strays(self) -> None:
        """Launch templates with our tag that the ledger has not. Nothing is launched by them any
        more. Raises LeaseLost."""
        turn = self._turn
        if not self._backoff.admits(STRAYS):
            return
        known = turn.work.launch_template_names()
        try:
            for name in self._there():
                if name not in known:
                    turn.must_outlive_call()
                    turn.cloud.delete_launch_template(name)
                    turn.journal.info("launch template of no launch of ours removed", name=name)
        except CallFailed as failed:
            self._backoff.failed(STRAYS)
            turn.journal.info("launch templates not compared", code=failed.code)
            if failed.kind != "refused":
                return
            # A site that uses none any more may not be permitted to list them.
        self._comparing.done()

    def _there(self) -> list[str]:
        """Names of those that AWS has; none is asked for where none was ever made. Raises
        CallFailed."""
        turn = self._turn
        if not self._is_restored and not turn.work.had_launch_template():
            return []
        return turn.cloud.launch_templates(turn.deployment)

    def _remove(self, row: dict[str, Any]) -> None:
        """An intent without an outcome may have made it: it is removed by name all the same."""
        turn = self._turn
        template = turn.ledger.get(LaunchTemplate, row["template_key"])
        assert template is not None
        if row["state"] != "deleting":
            template.intend_deletion("nothing uses it any more")
            turn.must_outlive_call()
            turn.save(template, correlation_id=row["correlation_id"], causation_id=row["event_id"])
        turn.must_outlive_call()
        try:
            turn.cloud.delete_launch_template(row["name"])
        except CallFailed as failed:
            self._backoff.failed(row["template_key"])
            turn.journal.info("launch template not removed", name=row["name"], code=failed.code)
            return
        template.delete()
        turn.save(template, correlation_id=row["correlation_id"], causation_id=row["event_id"])
