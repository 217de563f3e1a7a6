"""`hostledger tokens create | list | revoke`: who may ask the server."""

from __future__ import annotations

import argparse
from contextlib import closing

from domain.token import ROLES
from interfaces.cli import options, output

COLUMNS = ("token_id", "name", "role", "created_at", "expires_at", "revoked_at", "reason")
DAYS = 90


def _days(value: str) -> int:
    """An argument that counts days, from 0."""
    number = int(value)
    if number < 0:
        raise ValueError("below 0")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    creating = options.add_action(
        actions, "create", create, "make a token and print it, this once: the ledger has its digest"
    )
    creating.add_argument("--role", choices=ROLES, required=True, help="each may more than before")
    creating.add_argument(
        "--name", type=options.text, metavar="TEXT", help="whose it is, or what for"
    )
    creating.add_argument(
        "--days",
        type=_days,
        default=DAYS,
        metavar="N",
        help=f"until it ends, default {DAYS}; 0: never",
    )
    options.add_action(actions, "list", list_tokens, "all there ever were, without themselves")
    revoking = options.add_action(actions, "revoke", revoke, "let a token open nothing any more")
    revoking.add_argument("token_id", type=options.text, metavar="ID")
    options.add_reason(revoking)


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def create(arguments: argparse.Namespace) -> int:
    from application.tokens import CreateToken, create_token, ends_after

    side = options.writing(arguments)
    random = side.random()
    expires_at = ends_after(side.clock().now()[0], arguments.days)
    command = CreateToken(arguments.name or "", arguments.role, expires_at, random(32), random(16))
    with options.ledger_of(side) as ledger:
        create_token(command, ledger)
    if output.is_data(arguments):
        output.show_data(
            arguments,
            {
                "token_id": command.token_id,
                "token": command.token,
                "role": command.role,
                "expires_at": expires_at or None,
            },
        )
    else:
        print(command.token)
    return 0


def list_tokens(arguments: argparse.Namespace) -> int:
    from application.tokens import Tokens

    tokens = Tokens()
    with closing(options.reading(arguments).log()) as view:
        tokens.follow(view)
    rows = list(tokens.known.values())
    return output.show_rows(arguments, "tokens", rows, COLUMNS, "no token")


def revoke(arguments: argparse.Namespace) -> int:
    from application.tokens import RevokeToken, revoke_token

    side = options.writing(arguments)
    command = RevokeToken(arguments.token_id, arguments.reason, side.random()(16))
    with options.ledger_of(side) as ledger:
        revoke_token(command, ledger)
    if output.is_data(arguments):
        output.show_data(arguments, {"token_id": arguments.token_id})
    else:
        print(f"{arguments.token_id} revoked")
    return 0
