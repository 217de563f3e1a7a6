"""Making a store's tables, and bringing a copy to life: the only code that creates tables."""

from __future__ import annotations

import os

from application.failures import StoreBusy, StoreError, StoreMissing
from application.projections import VERSIONS
from domain.deployment import Deployment
from infrastructure.event_store.dynamodb import DynamodbCopy, DynamodbEventStore
from infrastructure.event_store.dynamodb_client import LOG, ROWS, TABLES, Tables, key
from infrastructure.event_store.dynamodb_http import CallRefused
from infrastructure.event_store.dynamodb_log import (
    LEASES,
    SEEN,
    Head,
    describe,
    new_head,
    read_head,
)
from infrastructure.event_store.dynamodb_rows import CLOUD_STATES, ORPHANS, SWEEPS, writes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from application.ports import Clock

LONGEST_CREATION = 300.0
"""Seconds in which a table must have been made."""

LOOK_AGAIN = 2.0

READ, WRITE = "dynamodb:table:ReadCapacityUnits", "dynamodb:table:WriteCapacityUnits"


def create_tables(
    tables: Tables, settings: dict[str, Any], suffixes: Sequence[str] = TABLES
) -> list[str]:
    """Make those of the tables that are not there; what the site should know of its settings.

    Raises StoreError. What was interrupted is done again.
    """
    scaling = settings["auto_scaling"]
    provisioned = settings["billing_mode"] == "PROVISIONED"
    for suffix in suffixes:
        _create(tables, suffix, settings["billing_mode"], scaling)
    warnings = []
    for suffix in suffixes:
        _wait(tables, suffix)
        name = tables.table(suffix)
        tables.call(
            "UpdateContinuousBackups",
            TableName=name,
            PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
        )
        if provisioned and scaling["enabled"]:
            _scale(tables, name, scaling)
    if scaling["enabled"] and not provisioned:
        warnings.append(
            "storage.dynamodb_strategy.auto_scaling is kept and does nothing: tables with "
            "billing_mode PAY_PER_REQUEST need none"
        )
    return warnings


def _create(tables: Tables, suffix: str, billing: str, scaling: dict[str, Any]) -> None:
    asked: dict[str, Any] = {
        "TableName": tables.table(suffix),
        "AttributeDefinitions": [
            {"AttributeName": "PK", "AttributeType": "S"},
            {"AttributeName": "SK", "AttributeType": "S"},
        ],
        "KeySchema": [
            {"AttributeName": "PK", "KeyType": "HASH"},
            {"AttributeName": "SK", "KeyType": "RANGE"},
        ],
        "BillingMode": billing,
        "DeletionProtectionEnabled": True,
        "Tags": [{"Key": "hostledger:store", "Value": tables.prefix}],
    }
    if billing == "PROVISIONED":
        asked["ProvisionedThroughput"] = {
            "ReadCapacityUnits": scaling["min_read_capacity"],
            "WriteCapacityUnits": scaling["min_write_capacity"],
        }
    try:
        tables.call("CreateTable", **asked)
    except CallRefused:
        pass  # It is there: an earlier `store init` was interrupted.


def _wait(tables: Tables, suffix: str) -> None:
    began = tables.clock.now()[2]
    while True:
        try:
            if describe(tables, suffix)["TableStatus"] == "ACTIVE":
                return
        except StoreMissing:
            pass  # DescribeTable is eventually consistent
        if tables.clock.now()[2] - began > LONGEST_CREATION:
            raise StoreBusy(
                f"{tables.name}: the table {tables.table(suffix)} is not active after "
                f"{LONGEST_CREATION:.0f} s: run the same command again"
            )
        tables.clock.sleep(LOOK_AGAIN)


def _scale(tables: Tables, name: str, scaling: dict[str, Any]) -> None:
    """Target tracking (API_RegisterScalableTarget, API_PutScalingPolicy)."""
    for dimension, kind, metric in (
        (READ, "read", "DynamoDBReadCapacityUtilization"),
        (WRITE, "write", "DynamoDBWriteCapacityUtilization"),
    ):
        what = {
            "ServiceNamespace": "dynamodb",
            "ResourceId": f"table/{name}",
            "ScalableDimension": dimension,
        }
        tables.call(
            "RegisterScalableTarget",
            "application-autoscaling",
            **what,
            MinCapacity=scaling[f"min_{kind}_capacity"],
            MaxCapacity=scaling[f"max_{kind}_capacity"],
        )
        tables.call(
            "PutScalingPolicy",
            "application-autoscaling",
            **what,
            PolicyName=f"hostledger-{name}-{kind}",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": float(scaling["target_utilization"]),
                "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
            },
        )


def ids_of(tables: Tables) -> dict[str, str]:
    """Table name -> its id, which a restored table does not share."""
    return {tables.table(suffix): describe(tables, suffix)["TableId"] for suffix in TABLES}


def _found(tables: Tables) -> Head | None:
    try:
        return read_head(tables)
    except StoreMissing:
        return None


def create_store(
    tables: Tables,
    settings: dict[str, Any],
    directory: str,
    clock: Clock,
    actor: dict[str, str],
    program_version: str,
) -> tuple[str, list[str]]:
    """Make an empty ledger; its deployment id and warnings. Raises StoreError where one is."""
    if _found(tables) is not None:
        raise StoreError(
            f"{tables.name} exists already: a deployment has one store, and this is it; "
            f"`hostledger store init --join {tables.name}` registers it for this user"
        )
    warnings = create_tables(tables, settings)
    deployment = os.urandom(16).hex()
    _put_head(tables, deployment)
    store = DynamodbEventStore(tables, directory, clock, actor, inert=True)
    store.save(Deployment.create(deployment, program_version), correlation_id="cmd-" + deployment)
    recorded = ids_of(tables)
    store.change_head(lambda head: head.facts["tables"].update(recorded))
    return deployment, warnings


def _put_head(tables: Tables, deployment: str) -> None:
    from infrastructure.event_store.dynamodb_client import ConditionFailed

    try:
        tables.put(LOG, new_head(deployment).item(), ConditionExpression="attribute_not_exists(PK)")
    except ConditionFailed as failed:
        if failed.doubtful and read_head(tables).facts["deployment"] == deployment:
            return
        raise StoreError(
            f"{tables.name} exists already: another process made it just now"
        ) from None


def begin_copy(
    tables: Tables,
    settings: dict[str, Any],
    directory: str,
    deployment: str,
    clock: Clock,
    actor: dict[str, str],
) -> DynamodbCopy:
    """The store that takes over another one's log, made when it is not there. No table is recorded
    in it, so that it is inert until it is activated. Raises StoreError."""
    head = _found(tables)
    if head is None:
        create_tables(tables, settings)
        _put_head(tables, deployment)
        head = read_head(tables)
    if head.facts["deployment"] != deployment:
        raise StoreError(
            f"{tables.name} is the store of another deployment ({head.facts['deployment']}, not "
            f"{deployment}): two are never mixed"
        )
    if head.facts["tables"]:
        raise StoreError(
            f"{tables.name} lives already: nothing is copied over a store that is in use"
        )
    return DynamodbCopy(tables, directory, clock, actor, inert=True)


def activate_store(
    tables: Tables,
    settings: dict[str, Any],
    directory: str,
    clock: Clock,
    actor: dict[str, str],
    reason: str,
) -> int:
    """Make a copied or restored store the living one; its new incarnation.

    A backup is restored as the log's table alone: the others are made anew and filled from it. What
    the original's worker knew of AWS is not ours to trust; leases end, but their fencing numbers go
    on: a worker that is still running must not pass.
    """
    store = DynamodbEventStore(tables, directory, clock, actor, inert=True)
    try:
        read_tables = [suffix for suffix in TABLES if suffix != LOG]
        create_tables(tables, settings, read_tables)
        recorded = ids_of(tables)
        known = read_head(tables).facts["tables"]
        made_anew = any(known.get(name) != table_id for name, table_id in recorded.items())
        if made_anew:
            rebuild_rows(store)
        _empty_notebook(tables)
        deployment = store.get(Deployment, "")
        if deployment is None:
            raise StoreError(f"{tables.name}: the log does not begin with a deployment")
        deployment.activate(reason)
        incarnation = deployment.incarnation
        store.insist()
        store.save(deployment, correlation_id="cmd-" + os.urandom(16).hex())

        def revive(head: Head) -> None:
            head.facts.update(incarnation=incarnation, tables=recorded, moved_to="")
            if made_anew:
                head.facts.update(versions=VERSIONS)

        store.change_head(revive)
        return incarnation
    finally:
        store.close()


def rebuild_rows(store: DynamodbEventStore) -> None:
    """Write every read row as the log alone says it."""
    from infrastructure.event_store.commit import Rows

    connection = store.connection
    items = []
    for table in Rows.KEYS:
        cursor = connection.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        for values in cursor:
            row = dict(zip(names, values, strict=True))
            machine = None
            if table == "returned_machines" and row["ours"]:
                found = connection.execute(
                    "SELECT request_id FROM machines WHERE machine_id = ?", (row["machine_id"],)
                ).fetchone()
                machine = {"request_id": found[0]} if found else None
            items += [(suffix, item) for suffix, item, _ in writes_of(table, None, row, machine)]
    store.tables.put_all(items)


def _empty_notebook(tables: Tables) -> None:
    gone = []
    places = [(LOG, SEEN), (ROWS, SWEEPS), (ROWS, CLOUD_STATES), (ROWS, ORPHANS)]
    for suffix, partition in places:
        gone += [(suffix, partition, item["SK"]["S"]) for item in tables.query(suffix, partition)]
    tables.delete_all(gone)
    for item in tables.query(LOG, LEASES):
        tables.call(
            "UpdateItem",
            TableName=tables.table(LOG),
            Key=key(LEASES, item["SK"]["S"]),
            UpdateExpression="SET fence = fence + :one, released = :yes, version = :version",
            ExpressionAttributeValues={
                ":one": {"N": "1"},
                ":yes": {"N": "1"},
                ":version": {"S": tables.random(8).hex()},
            },
        )
