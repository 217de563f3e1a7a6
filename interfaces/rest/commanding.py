"""Commands in the server: one thread has the store open for writing, and whoever waits for it at
the same time shares a commit."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

from application import queries
from application.cancel_request import end_request
from application.command_queue import CommandQueue, answer_each
from application.failures import Conflict, StoreError
from application.request_machines import RequestMachines, request_machines
from application.return_machines import ReturnMachines, return_machines
from application.tokens import CreateToken, RevokeToken, create_token, ends_after, revoke_token
from domain.refusals import UnknownMachine
from domain.template import Template
from interfaces.loading import loads
from interfaces.read_side import Call, hindrance
from interfaces.rest.looks import RECENT, Looks
from interfaces.rest.problems import Problem

T = TypeVar("T")
Random = Callable[[int], bytes]


class Acting:
    """What a command acts on: the site as its files are now, and its open store. One thread's."""

    def __init__(self, looks: Looks, call: Call, store: Any, model: Any) -> None:
        self._looks = looks
        self._store = store
        self._model = model
        self._view = call.storage.view_of(store)
        self._provider = call.site.provider

    def request_machines(
        self, template_id: str, count: int, reason: str, source: str, random: Random
    ) -> dict[str, Any]:
        """Raises a Refusal, Conflict, StoreError."""
        site = self._looks.recent_call()
        key = Template.key(self._provider, template_id)
        command = RequestMachines(
            self._provider,
            template_id,
            count,
            site.compiled.template(template_id),
            self._model.template_revision(key),
            site.settings["provider"]["fulfilment_deadline"],
            source,
            random(16),
            reason=reason,
        )
        try:
            request_machines(command, self._store, partial(self._model.template_revision, key))
        except Conflict:
            if self._store.command_result(command.request_id) is None:
                raise
            asked = queries.request(self._view, command.request_id, 0)
            self._refuse_other((asked["template_id"], asked["machine_count"]), (template_id, count))
        return self._recorded(command.request_id)

    def return_machines(
        self, machine_ids: list[str], reason: str, source: str, random: Random
    ) -> dict[str, Any]:
        """Raises UnknownMachine, Conflict, StoreError."""
        machine_ids = list(dict.fromkeys(machine_ids))
        self._store.refuse_failed_projections()
        known = self._model.known(machine_ids)
        unknown = [machine_id for machine_id in machine_ids if machine_id not in known]
        if unknown:
            raise UnknownMachine(
                f"the ledger has no machine {', '.join(unknown[:10])}: nothing was returned; "
                "/api/v1/machines?alive=true shows what may be"
            )
        command = ReturnMachines(self._provider, machine_ids, [], reason, source, random(16))
        try:
            return_machines(command, self._store)
        except Conflict:
            if self._store.command_result(command.return_id) is None:
                raise
            named = [row["machine_id"] for row in self._view.returned(command.return_id)]
            self._refuse_other(named, machine_ids)
        return self._recorded(command.return_id)

    def cancel_request(
        self, request_id: str, reason: str, source: str, random: Random
    ) -> dict[str, Any]:
        """Raises UnknownRequest, RequestIsFinal, Conflict, StoreError."""
        command_id = "cmd-" + random(32)[16:].hex()
        done = self._store.command_result(command_id)
        if done is None:
            self._store.refuse_failed_projections()
            returns = end_request(
                request_id,
                queries.request(self._view, request_id, 0)["provider"],
                partial(self._living, request_id),
                reason,
                source,
                random,
                self._store,
                command_id,
            )
        else:
            returns = [done] if done else []
        return {**self._recorded(request_id), "state": "cancelled", "return_ids": returns}

    def _living(self, request_id: str) -> list[str]:
        rows = queries.machines(self._view, None, request_id, True)
        return [row["machine_id"] for row in rows if not row["return_id"]]

    def create_token(self, name: str, role: str, days: int) -> dict[str, Any]:
        expires_at = ends_after(self._looks.call().now[0], days)
        command = CreateToken(name, role, expires_at, os.urandom(32), os.urandom(16))
        create_token(command, self._store)
        return {
            "token_id": command.token_id,
            "token": command.token,
            "role": role,
            "expires_at": expires_at or None,
        }

    def revoke_token(self, token_id: str, reason: str) -> None:
        """Raises UnknownToken, TokenIsRevoked, Conflict, StoreError."""
        revoke_token(RevokeToken(token_id, reason, os.urandom(16)), self._store)

    def _refuse_other(self, carried_out: Any, asked: Any) -> None:
        if carried_out != asked:
            raise Problem(
                409,
                "key-reused",
                f"this Idempotency-Key was used for {carried_out}: another command needs another "
                "key",
            )

    def _recorded(self, request_id: str) -> dict[str, Any]:
        return {"request_id": request_id, "position": self._view.end()[0]}


class _Waiting:
    """Who waits in the event loop for a command (`command_queue.Answer`)."""

    __slots__ = ("_future", "set_exception", "set_result")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future
        self.set_result = future.set_result
        self.set_exception = future.set_exception

    def set_running_or_notify_cancel(self) -> bool:
        return not self._future.cancelled()


class Commands:
    """Takes commands from the event loop to the store's thread: those that come in one turn of the
    loop at once, and the answers of a commit as well, because the two keep each other waiting
    whenever one has a word for the other."""

    def __init__(self, looks: Looks, span: Callable[[str], AbstractContextManager[Any]]) -> None:
        """`span` is around what is traced (`health.Watching`)."""
        self._looks = looks
        self._span = span
        self._queue: CommandQueue[Acting] = CommandQueue(self._open, tell=self._tell)
        self._loop: Any = None
        self._come: list[tuple[Callable[[Acting], Any], str, _Waiting]] = []
        self._hindrance = ("", 0.0)

    def _open(self) -> tuple[Any, Acting]:
        with loads.loading("commands"):
            call = self._looks.call()
            store, model = call.ledger()
            return store, Acting(self._looks, call, store, model)

    def open(self) -> None:
        """Have the store open before the first command. Raises StoreError."""
        self._queue.submit(lambda acting: None).result()

    async def carry_out(self, principal: str, command: Callable[[Acting], T]) -> T:
        """What the command answers, when it is on disk. Raises what it raises."""
        with self._span("command"):
            self._loop = asyncio.get_running_loop()
            answer: asyncio.Future[T] = self._loop.create_future()
            if not self._come:
                self._loop.call_soon(self._hand_over)
            self._come.append((command, principal, _Waiting(answer)))
            return await answer

    def _hand_over(self) -> None:
        come, self._come = self._come, []
        try:
            self._queue.submit_all(come)
        except StoreError as error:
            self._settle([(waiting, error) for _, _, waiting in come])

    def _tell(self, outcomes: Iterable[tuple[_Waiting, Any]]) -> None:
        """In the store's thread. Before there is a loop nobody waits but `open`."""
        if self._loop is None:
            answer_each(outcomes)
        else:
            self._loop.call_soon_threadsafe(self._settle, outcomes)

    def _settle(self, outcomes: Iterable[tuple[_Waiting, Any]]) -> None:
        wanted = [one for one in outcomes if one[0].set_running_or_notify_cancel()]
        answer_each(wanted)

    async def hindrance(self) -> str:
        """Why nobody works on what is recorded, "" when a worker does; as of a second ago."""
        told, until = self._hindrance
        if time.monotonic() >= until:
            told = await self._looks.run(lambda: hindrance(self._looks.call()))
            self._hindrance = (told, time.monotonic() + RECENT)
        return told

    def close(self) -> None:
        """After what waits was carried out."""
        self._queue.close()
