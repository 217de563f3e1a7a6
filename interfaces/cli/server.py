"""`hostledger server run`: queries, commands and the console over HTTP."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing

from application.failures import NotInstalled
from application.tokens import Tokens
from interfaces.cli import options
from interfaces.loading import loads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    running = options.add_action(actions, "run", run_server, "listen until told to end")
    running.add_argument("--host", type=options.text, metavar="ADDRESS", help="server.host")
    running.add_argument("--port", type=int, metavar="N", help="server.port; 0: any that is free")
    running.add_argument("--socket", type=options.text, metavar="PATH", help="server.socket")
    running.add_argument(
        "--with-worker", action="store_true", help="and a worker beside it, which ends with it"
    )


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def run_server(arguments: argparse.Namespace) -> int:
    try:
        with loads.loading("interfaces.rest"):
            from interfaces.rest.main import run as listen
    except ModuleNotFoundError as error:
        raise NotInstalled(
            f"{error.name} is not installed: `pip install 'hostledger[server]'` adds what the "
            "server needs"
        ) from None
    for name in ("host", "port", "socket"):
        given = getattr(arguments, name)
        if given is not None:
            told = os.path.abspath(given) if name == "socket" else str(given)
            arguments.set.append((f"server.{name}", told))
    call = options.reading(arguments)
    tokens = Tokens()
    with closing(call.log()) as view:
        tokens.follow(view)
    if not any(token["revoked_at"] is None for token in tokens.known.values()):
        print(
            "hostledger: nobody has a token yet: `hostledger tokens create --role viewer` prints "
            "one, for the console's login page and to be sent as `Authorization: Bearer TOKEN`",
            file=sys.stderr,
        )
    return listen(call, call.settings["server"], with_worker=arguments.with_worker)
