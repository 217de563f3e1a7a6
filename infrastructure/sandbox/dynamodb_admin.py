"""DynamoDB's tables of all regions: made, found, changed, described and tagged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .dynamodb_calls import Asked, Settings
from .dynamodb_tables import Place, Row, Table, billing, checked_throughput, made
from .dynamodb_values import invalid
from .wire import AwsError

_NOT_FOUND = "Requested resource not found"


class Tables:
    """The tables of one account, by region and name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tables: dict[tuple[str, str], Table] = {}
        # What the last write anywhere replaced: table, place, the row before.
        self.replaced: list[tuple[Table, Place, Row | None]] = []

    def __iter__(self) -> Iterator[Table]:
        return iter(self._tables.values())

    def named(self, region: str, name: str) -> Table:
        """A table, whatever its state. Raises KeyError."""
        return self._tables[(region, name)]

    def forget(self, now: float) -> None:
        """Drop the tables whose deletion is over."""
        for key, table in list(self._tables.items()):
            if table.gone_from is not None and table.gone_from <= now:
                del self._tables[key]

    def find(self, asked: Asked, name: Any, *, ready: bool = True) -> Table:
        """A table by name; one that is not there, or not yet, is not found."""
        if not isinstance(name, str) or not name:
            raise invalid("The parameter 'TableName' is required but was not present")
        table = self._tables.get((asked.region, name))
        if table is None or (ready and table.status(asked.now) in ("CREATING", "DELETING")):
            message = _NOT_FOUND if ready else f"{_NOT_FOUND}: Table: {name} not found"
            raise AwsError("ResourceNotFoundException", message)
        return table

    def _create_table(self, asked: Asked) -> dict[str, Any]:
        name = asked.body.get("TableName", "")
        if (asked.region, name) in self._tables:
            raise AwsError("ResourceInUseException", f"Table already exists: {name}")
        arn = f"arn:aws:dynamodb:{asked.region}:{self._settings.account}:table/{name}"
        table = made(asked.body, arn, asked.now, asked.now + self._settings.table_delay)
        self._tables[(asked.region, name)] = table
        return {"TableDescription": {**table.description(asked.now), "TableStatus": "CREATING"}}

    def _describe_table(self, asked: Asked) -> dict[str, Any]:
        table = self.find(asked, asked.body.get("TableName"), ready=False)
        for index in table.indexes.values():
            index.show(asked.now)
        return {"Table": table.description(asked.now)}

    def _delete_table(self, asked: Asked) -> dict[str, Any]:
        table = self._changeable(asked)
        if table.protected:
            raise invalid(
                "Resource cannot be deleted as it is currently protected against deletion. "
                "Disable deletion protection first."
            )
        table.gone_from = asked.now + self._settings.table_delay
        if not self._settings.table_delay:
            del self._tables[(asked.region, table.name)]
        return {"TableDescription": table.description(asked.now)}

    def _list_tables(self, asked: Asked) -> dict[str, Any]:
        after = asked.body.get("ExclusiveStartTableName", "")
        names = sorted(
            name for region, name in self._tables if region == asked.region and name > after
        )
        most = asked.body.get("Limit", 100)
        found: dict[str, Any] = {"TableNames": names[:most]}
        return found | ({"LastEvaluatedTableName": names[most - 1]} if len(names) > most else {})

    def _update_table(self, asked: Asked) -> dict[str, Any]:
        table, body = self._changeable(asked), asked.body
        if not body.keys() - {"TableName"}:
            raise invalid("At least one of the settings of a table must be given")
        updates = [update.get("Update") for update in body.get("GlobalSecondaryIndexUpdates", ())]
        if None in updates:
            raise invalid("The sandbox can neither create nor delete the index of a table")
        summary = table.described.get("BillingModeSummary", {"BillingMode": "PROVISIONED"})
        mode = body.get("BillingMode", summary["BillingMode"])
        if "BillingMode" in body or "ProvisionedThroughput" in body:
            throughput = checked_throughput(mode, body.get("ProvisionedThroughput"))
            table.described.pop("BillingModeSummary", None)
            table.described |= billing(mode, throughput, asked.now)
        for update in updates:
            index = table.indexes.get(update["IndexName"])
            if index is None:
                raise AwsError("ResourceNotFoundException", _NOT_FOUND)
            index.throughput = checked_throughput(mode, update["ProvisionedThroughput"])
        table.protected = body.get("DeletionProtectionEnabled", table.protected)
        table.updating_until = asked.now + self._settings.table_delay
        return {"TableDescription": table.description(asked.now)}

    def _changeable(self, asked: Asked) -> Table:
        table = self.find(asked, asked.body.get("TableName"), ready=False)
        if (status := table.status(asked.now)) != "ACTIVE":
            raise AwsError(
                "ResourceInUseException",
                f"Attempt to change a resource which is still in use: Table is {status}: "
                f"{table.name}",
            )
        return table

    def _update_backups(self, asked: Asked) -> dict[str, Any]:
        table = self._backed_up(asked)
        wanted = asked.body.get("PointInTimeRecoverySpecification", {})
        if "PointInTimeRecoveryEnabled" not in wanted:
            raise invalid("PointInTimeRecoverySpecification must say PointInTimeRecoveryEnabled")
        if not wanted["PointInTimeRecoveryEnabled"]:
            table.recovery_from = None
        elif table.recovery_from is None:
            table.recovery_from = asked.now
        return _backups(table, asked.now)

    def _describe_backups(self, asked: Asked) -> dict[str, Any]:
        return _backups(self._backed_up(asked), asked.now)

    def _backed_up(self, asked: Asked) -> Table:
        name = asked.body.get("TableName")
        if (asked.region, name) not in self._tables:
            raise AwsError("TableNotFoundException", f"Table not found: {name}")
        return self.find(asked, name)

    def _update_time_to_live(self, asked: Asked) -> dict[str, Any]:
        table = self.find(asked, asked.body.get("TableName"))
        wanted = asked.body.get("TimeToLiveSpecification", {})
        name = wanted.get("AttributeName")
        if not name or "Enabled" not in wanted:
            raise invalid("TimeToLiveSpecification must have AttributeName and Enabled")
        if wanted["Enabled"] == (table.time_to_live is not None):
            raise invalid(f"TimeToLive is already {'enabled' if wanted['Enabled'] else 'disabled'}")
        table.time_to_live = name if wanted["Enabled"] else None
        return {"TimeToLiveSpecification": wanted}

    def _describe_time_to_live(self, asked: Asked) -> dict[str, Any]:
        name = self.find(asked, asked.body.get("TableName")).time_to_live
        if name is None:
            return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": name}}

    def _tag(self, asked: Asked) -> dict[str, Any]:
        tags = {one["Key"]: one["Value"] for one in asked.body.get("Tags", ())}
        self._by_arn(asked).tags.update(tags)
        return {}

    def _untag(self, asked: Asked) -> dict[str, Any]:
        table = self._by_arn(asked)
        for name in asked.body.get("TagKeys", ()):
            table.tags.pop(name, None)
        return {}

    def _list_tags(self, asked: Asked) -> dict[str, Any]:
        tags = self._by_arn(asked).tags
        return {"Tags": [{"Key": name, "Value": value} for name, value in tags.items()]}

    def _by_arn(self, asked: Asked) -> Table:
        arn = asked.body.get("ResourceArn", "")
        table = self._tables.get((asked.region, arn.rpartition("/")[2]))
        if table is None or table.arn != arn:
            raise AwsError("ResourceNotFoundException", f"{_NOT_FOUND}: ResourcArn: {arn}")
        return table


ADMINISTRATION: dict[str, Callable[[Tables, Asked], dict[str, Any]]] = {
    "CreateTable": Tables._create_table,
    "DescribeTable": Tables._describe_table,
    "DeleteTable": Tables._delete_table,
    "ListTables": Tables._list_tables,
    "UpdateTable": Tables._update_table,
    "UpdateContinuousBackups": Tables._update_backups,
    "DescribeContinuousBackups": Tables._describe_backups,
    "UpdateTimeToLive": Tables._update_time_to_live,
    "DescribeTimeToLive": Tables._describe_time_to_live,
    "TagResource": Tables._tag,
    "UntagResource": Tables._untag,
    "ListTagsOfResource": Tables._list_tags,
}


def _backups(table: Table, now: float) -> dict[str, Any]:
    recovery: dict[str, Any] = {"PointInTimeRecoveryStatus": "DISABLED"}
    if table.recovery_from is not None:
        recovery = {
            "PointInTimeRecoveryStatus": "ENABLED",
            "RecoveryPeriodInDays": 35,
            "EarliestRestorableDateTime": table.recovery_from,
            "LatestRestorableDateTime": now,
        }
    return {
        "ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": recovery,
        }
    }
