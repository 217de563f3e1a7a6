"""Policy: whenever a launch has an outcome, let requests and machines follow from it.

The deal was decided once, in the outcome event; this repeats it onto the other streams, in small
commits, and may be interrupted anywhere.
"""

from __future__ import annotations

from typing import Any

from application.turn import Turn
from domain.launch_batch import LaunchBatch
from domain.machine import Machine
from domain.machine_request import MachineRequest

POLICY = "assigning"
TOPICS = ("LaunchAccepted", "LaunchRejected", "LaunchSettled")


class Assigning:
    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def take_turn(self) -> None:
        """Follow every outcome that is not followed yet."""
        while events := self._turn.work.events_after(POLICY, TOPICS, 100):
            for event in events:
                self._follow(event)

    def _follow(self, event: dict[str, Any]) -> None:
        turn = self._turn
        data = event["data"]
        batch = turn.ledger.get(LaunchBatch, event["identifier"])
        assert batch is not None and batch.intent is not None
        intent = batch.intent
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
            request(request_id).assign(event["identifier"], machine_ids)
        if event["topic"] != "LaunchSettled":
            given: dict[str, int] = {}
            for request_id, machine_ids in data.get("deal", ()):
                # Its claim, and maybe what it wanted beyond it.
                given[request_id] = given.get(request_id, 0) + len(machine_ids)
            for request_id, count in intent.claims:
                missing = count - given.get(request_id, 0)
                if missing > 0 and (data.get("missing") or data.get("definite")):
                    request(request_id).fall_short(
                        event["identifier"],
                        intent.pool,
                        data.get("code", "PartialFulfilment"),
                        data.get("message", "EC2 gave fewer machines than were asked for"),
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
                    price_type="ondemand",
                    name=instance["name"],
                    private_ip_address=instance["private_ip_address"],
                    launch_time=instance["launch_time"],
                )
                add(machine, request_id or event["correlation_id"], event["event_id"])
