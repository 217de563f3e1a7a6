"""`hostledger worker run | drain | status | stop`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import closing
from typing import Any

from application import queries
from application.failures import StoreError
from interfaces.cli import options, output
from interfaces.loading import loads
from interfaces.read_side import Call, worker_status

LONGEST_STOP = 30.0
"""Seconds that `stop` waits for a worker to finish its turn."""

POLL = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    options.add_action(actions, "run", work, "work in the foreground until told to stop")
    options.add_action(actions, "drain", work, "work until nothing is open, then end")
    options.add_action(actions, "status", status, "whether a worker lives, and who has the lease")
    options.add_action(actions, "stop", stop, "have the worker finish its turn and end")


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def work(arguments: argparse.Namespace) -> int:
    with loads.loading("interfaces.worker"):
        from interfaces.worker.main import run as run_worker

    call = options.reading(arguments)
    facts = worker_status(call)
    if facts["lives"]:
        print(
            f"hostledger: a worker (pid {facts['pid']}) has the lease: this one waits for it",
            file=sys.stderr,
        )
    return run_worker(call.site, call.environ, drain=arguments.action == "drain")


def status(arguments: argparse.Namespace) -> int:
    call = options.reading(arguments)
    with closing(call.log()) as view:
        store = queries.store_status(view, call.now, call.places())
    document = {
        "provider": call.site.provider,
        **worker_status(call),
        "paused": store["paused"],
        "accounts": store["accounts"],
        "leases": store["leases"],
        "sweeps": store["sweeps"],
    }
    return output.show_document(arguments, document, accounts=(), leases=(), sweeps=())


def stop(arguments: argparse.Namespace) -> int:
    call = options.reading(arguments)
    document = {"stopped": stop_worker(call, LONGEST_STOP)}
    if output.is_data(arguments):
        output.show_data(arguments, document)
    else:
        print(f"worker {document['stopped']} has ended")
    return 0


def stop_worker(call: Call, longest: float) -> int:
    """End the worker that holds the instance's lock and wait for it; its process id.

    Raises StoreError when there is none, when it is another user's, or when it does not end.
    """
    facts = worker_status(call)
    if not facts["lives"]:
        raise StoreError(f"no worker of {call.site.provider} lives: there is nothing to stop")
    pid = facts["pid"]
    if not isinstance(pid, int) or not _has_open(pid, call.site.worker_lock):
        raise StoreError(
            f"a process holds {call.site.worker_lock}, but it is not {pid}, which "
            f"{call.site.worker_status} names, or it is another user's: try again in a moment, "
            "or as the user that runs the worker"
        )
    os.kill(pid, signal.SIGTERM)
    end = call.clock.now()[2] + longest
    while call.clock.now()[2] < end:
        if not worker_status(call)["lives"]:
            return pid
        call.clock.sleep(POLL)
    raise StoreError(
        f"worker {pid} was told to end and has not within {longest:g} s: it may be waiting for "
        "AWS; look again with `hostledger worker status`"
    )


def _has_open(pid: int, path: str) -> bool:
    """Whether the process has the file open: a number in a file may be another process by now."""
    wanted: Any = os.path.realpath(path)
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for name in names:
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") == wanted:
                return True
        except OSError:
            continue
    return False
