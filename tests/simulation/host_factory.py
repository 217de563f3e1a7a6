"""HostFactory as the protocol tells it: it polls, loses answers, asks again, and keeps its book."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from application.crash_points import Crash
from domain.refusals import Refusal
from interfaces.hostfactory.wire_format import BadInput
from tests.simulation.promises import keep

if TYPE_CHECKING:
    from tests.world import World

INTERVAL = 30.0
"""Seconds between two rounds of polling (HF_HOUSEKEEPING_LOOP_INTERVAL)."""


class Order:
    """What HostFactory knows of a request or return: `final` is its last answer."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.final: dict[str, Any] | None = None

    def take(self, request_id: str, entry: dict[str, Any]) -> None:
        """Compare an answer with what was told before. Raises Broken."""
        machines = {m["machineId"] for m in entry["machines"]}
        unknown = entry["message"] == "unknown request"
        keep("no command that was answered is forgotten", unknown and request_id)
        given = [m for m in entry["machines"] if m["result"] == "succeed"]
        more = self.count and len(given) > self.count
        keep("HostFactory is told of no more than it asked for", more and (self.count, entry))
        if self.final is not None:
            before = (self.final["status"], {m["machineId"] for m in self.final["machines"]})
            after = (entry["status"], machines)
            keep("a final answer never changes", before != after and (request_id, before, after))
        elif entry["status"] != "running":
            waiting = [m for m in entry["machines"] if m["result"] == "executing"]
            keep("a final answer has nothing that is on its way", waiting)
            self.final = entry


class HostFactory:
    """`requests`, `returns` and `hosts` are its book; `told` gets a line for each call that failed
    or whose answer was lost."""

    def __init__(self, site: World, told: Callable[[str], None]) -> None:
        self._site = site
        self._told = told
        self._polled = -INTERVAL
        self.requests: dict[str, Order] = {}
        self.returns: dict[str, Order] = {}
        self.hosts: dict[str, str] = {}
        self._to_return: set[str] = set()
        self.calls = 0

    def call(self, verb: str, document: dict[str, Any], lost: bool = False) -> Any:
        """The answer; None when there is none: the call failed, died, or nobody heard it."""
        self.calls += 1
        try:
            answer = self._site.call(verb, document)
        except (BadInput, Refusal) as refused:
            self._told(f"{verb} exits 1: {refused}")
            return None
        except Crash as crash:
            self._told(f"{verb} dies at {crash}")
            crash.__traceback__ = None
            gc.collect()  # what the process had open is closed
            return None
        if lost:
            self._told(f"the answer of {verb} is lost: {answer.get('requestId', '')}")
            return None
        return answer

    def ask(self, template_id: str, count: int, lost: bool = False) -> str:
        """Ask for machines; the id of the request, "" where it is not known."""
        wish = {"template": {"templateId": template_id, "machineCount": count}}
        answer = self.call("requestMachines", wish, lost)
        if answer is None:
            return ""
        request_id: str = answer["requestId"]
        keep("two requests never share an id", request_id in self.requests and request_id)
        self.requests[request_id] = Order(count)
        return request_id

    def give_back(self, machine_ids: list[str], lost: bool = False) -> str:
        """Return hosts; they are HostFactory's until it has the answer."""
        named = [{"machineId": m, "name": self.hosts[m]} for m in machine_ids]
        answer = self.call("requestReturnMachines", {"machines": named}, lost)
        self._to_return.update(machine_ids)
        if answer is None:
            return ""
        for machine_id in machine_ids:
            del self.hosts[machine_id]
        self._to_return -= set(machine_ids)
        self.returns[answer["requestId"]] = Order()
        return str(answer["requestId"])

    def poll(self) -> None:
        """Once each `INTERVAL`: what is open, what is to be given up, what was to be returned."""
        if self._site.clock.seconds - self._polled < INTERVAL:
            return
        self._polled = self._site.clock.seconds
        self.ask_for_status(self.open())
        if self._to_return:
            self.give_back(sorted(self._to_return))
        hosts = [{"machineId": m, "name": name} for m, name in sorted(self.hosts.items())]
        answer = self.call("getReturnRequests", {"machines": hosts})
        listed = {one["machineId"] for one in answer["requests"]} if answer else set()
        # Of those that it named: a call may wait for a worker while others of its calls go on.
        named = {one["machineId"] for one in hosts}
        keep("only HostFactory's own hosts are to be given up", listed - named)
        listed &= self.hosts.keys()
        if listed:
            self.give_back(sorted(listed))

    def open(self) -> list[str]:
        """Ids of what has no final answer."""
        orders = {**self.requests, **self.returns}
        return [request_id for request_id, order in orders.items() if order.final is None]

    def ask_for_status(self, request_ids: list[str]) -> None:
        """Of several at once, as of those that were final long ago."""
        if not request_ids:
            return
        asked = [{"requestId": request_id} for request_id in request_ids]
        answer = self.call("getRequestStatus", {"requests": asked})
        if answer is None:
            return
        for entry in answer["requests"]:
            request_id = entry["requestId"]
            order = self.requests.get(request_id) or self.returns[request_id]
            was_open = order.final is None
            order.take(request_id, entry)
            if was_open and order.final is not None and request_id in self.requests:
                for machine in entry["machines"]:
                    if machine["result"] == "succeed":
                        keep("a host has a name", not machine["name"] and machine)
                        self.hosts[machine["machineId"]] = machine["name"]
