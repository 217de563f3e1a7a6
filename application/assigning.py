"""Policy: whenever a launch has an outcome, let requests and machines follow from it.

The deal was decided once, in the outcome event; this repeats it onto the other streams, in small
commits, and may be interrupted anywhere.
"""

from __future__ import annotations

from typing import Any

from application.demand import pool_name
from application.turn import Turn
from domain.launch_batch import LaunchBatch
from domain.machine import Machine
from domain.machine_request import MachineRequest

POLICY = "assigning"
TOPICS = ("LaunchAccepted", "LaunchRejected", "LaunchSettled", "LaunchClosed")

NO_SHORTAGE = ("throttled", "template_gone")
"""Classes of reasons that say nothing about a pool: it is asked again, unless they end it."""


class Assigning:
    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def take_turn(self) -> None:
        """Follow every outcome that is not followed yet."""
        while events := self._turn.work.events_after(POLICY, TOPICS, self._turn.at_once):
            for event in events:
                self._follow(event)

    def _follow(self, event: dict[str, Any]) -> None:
        turn = self._turn
        data = event["data"]
        batch = turn.ledger.get(LaunchBatch, event["identifier"])
        assert batch is not None and batch.intent is not None
        intent = batch.intent
        units = {i["machine_id"]: i["units"] for i in data.get("instances", ())}
        owner = {
            machine_id: request_id
            for request_id, machine_ids in data.get("deal", ())
            for machine_id in machine_ids
        }
        requests: dict[str, MachineRequest] = {}

        def request(request_id: str) -> MachineRequest:
            if request_id not in requests:
                found = turn.ledger.get(MachineRequest, request_id)
                assert found is not None
                requests[request_id] = found
            return requests[request_id]

        for request_id, machine_ids in data.get("deal", ()):
            request(request_id).assign(event["identifier"], {m: units[m] for m in machine_ids})
        for request_id, missing in _missing(event["topic"], data, intent.claims, units):
            for pool, code, message in _reasons(data, intent.pool):
                request(request_id).fall_short(
                    event["identifier"],
                    pool_name(intent.account, pool),
                    code,
                    message,
                    missing,
                    data.get("gives_up", False),
                )
        with turn.chunks(tracking=(POLICY, event["position"])) as add:
            for request_id, aggregate in requests.items():
                add(aggregate, request_id, event["event_id"])
            for instance in data.get("instances", ()):
                machine = turn.ledger.get(Machine, instance["machine_id"])
                if machine is None:
                    machine = Machine(Machine.stream(instance["machine_id"]))
                request_id = owner.get(instance["machine_id"], "")
                machine.launch(
                    request_id=request_id,
                    batch_id=event["identifier"],
                    provider=intent.provider,
                    template_id=intent.template_id,
                    revision=intent.revision,
                    account=intent.account,
                    region=intent.region,
                    zone=instance["zone"],
                    instance_type=instance["instance_type"],
                    price_type=instance["price_type"],
                    name=instance["name"],
                    private_ip_address=instance["private_ip_address"],
                    launch_time=instance["launch_time"],
                    units=instance["units"],
                )
                add(machine, request_id or event["correlation_id"], event["event_id"])


def _missing(
    topic: str, data: dict[str, Any], claims: list[list[Any]], units: dict[str, int]
) -> list[list[Any]]:
    """[request id, units] of the claims that an outcome leaves unfilled for good."""
    if topic == "LaunchClosed":
        return data["claims"]  # type: ignore[no-any-return]
    if not data.get("missing") and not data.get("definite"):
        return []
    given: dict[str, int] = {}
    for request_id, machine_ids in data.get("deal", ()):
        # Its claim, and maybe what it wanted beyond it.
        given[request_id] = given.get(request_id, 0) + sum(units[m] for m in machine_ids)
    left = [[request_id, count - given.get(request_id, 0)] for request_id, count in claims]
    return [[request_id, missing] for request_id, missing in left if missing > 0]


def _reasons(data: dict[str, Any], pool: str) -> list[tuple[str, str, str]]:
    """(pool, code, message) of what AWS said."""
    if "code" in data:
        return [(pool, data["code"], data["message"])]
    return [
        (pool, code, message)
        for pool, kind, code, message in data.get("shortages", ())
        if kind not in NO_SHORTAGE or (kind != "throttled" and data["gives_up"])
    ]
