"""A load on an HTTP server, from a process of its own: so many clients at a time, or so many
requests a second whoever waits (`python -m tests.performance.load`, JSON in and out).

By hand over sockets, because a client library costs more than the server does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from typing import Any

import uvloop


class Connection(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._buffer = b""
        self._left = -1
        self._answer: asyncio.Future[int] | None = None
        self._status = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    async def ask(self, request: bytes) -> int:
        """The status of the answer, when all of it has come."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._buffer += data
            head, end, body = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            self._status = int(head[9:12])
            lower = head.lower()
            start = lower.find(b"content-length: ") + 16
            self._left = int(lower[start:].split(b"\r\n", 1)[0]) - len(body)
            self._buffer = b""
        else:
            self._left -= len(data)
        if self._left == 0:
            self._left = -1
            assert self._answer is not None
            self._answer.set_result(self._status)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))


def request(plan: dict[str, Any], number: int) -> bytes:
    body = json.dumps(plan["body"]).encode() if plan.get("body") else b""
    path = plan["paths"][number % len(plan["paths"])]
    lines = [
        f"{'POST' if body else 'GET'} {path} HTTP/1.1",
        f"Host: {plan['host']}",
        f"Authorization: Bearer {plan['token']}",
        f"Content-Length: {len(body)}",
    ]
    if body:
        lines.append("Content-Type: application/json")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def carry_out(plan: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(Connection, plan["host"], plan["port"]))[1]
        for _ in range(plan["clients"])
    ]
    waits: list[float] = []
    statuses: dict[int, int] = {}
    requests = [request(plan, number) for number in range(len(plan["paths"]))]
    asked = 0

    async def one(connection: Connection, since: float) -> None:
        nonlocal asked
        asked += 1
        status = await connection.ask(requests[asked % len(requests)])
        waits.append(time.perf_counter() - since)
        statuses[status] = statuses.get(status, 0) + 1

    began = time.perf_counter()
    end = began + plan["seconds"]
    if plan.get("rate"):
        free = deque(connections)
        freed = asyncio.Condition()

        async def at(due: float) -> None:
            async with freed:
                await freed.wait_for(lambda: free)
                connection = free.popleft()
            await one(connection, due)  # waiting for a connection is waiting too
            async with freed:
                free.append(connection)
                freed.notify()

        tasks = []
        for number in range(int(plan["rate"] * plan["seconds"])):
            due = began + number / plan["rate"]
            now = time.perf_counter()
            if due > now:
                await asyncio.sleep(due - now)
            tasks.append(asyncio.create_task(at(due)))
        await asyncio.gather(*tasks)
    else:

        async def client(connection: Connection) -> None:
            while time.perf_counter() < end:
                await one(connection, time.perf_counter())

        await asyncio.gather(*map(client, connections))
    took = time.perf_counter() - began
    waits.sort()
    return {
        "rate": len(waits) / took,
        "statuses": statuses,
        **{f"p{q}": 1000 * waits[min(len(waits) - 1, len(waits) * q // 100)] for q in (50, 95, 99)},
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(carry_out(json.load(sys.stdin)))))
