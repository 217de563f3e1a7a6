"""`hostledger tokens`: made once, listed without themselves, revoked with a reason."""

from __future__ import annotations

from tests.interfaces.commands import Run, refused
from tests.world import World


def test_a_token_is_printed_once_and_kept_as_a_digest(world: World, run: Run) -> None:
    made = run("tokens", "create", "--role", "viewer", "--name", "Grafana", "--output", "json")
    document = made.document
    assert document["token"].startswith("hlt_")

    (listed,) = run("tokens", "list", "--output", "json").document["tokens"]
    assert (listed["token_id"], listed["name"], listed["role"]) == (
        document["token_id"],
        "Grafana",
        "viewer",
    )
    assert listed["expires_at"] == document["expires_at"] is not None
    assert document["token"] not in str(world.events("TokenCreated"))
    assert run("tokens", "create", "--role", "admin", "--days", "0").status == 0
    assert run("tokens", "list", "--output", "json").document["tokens"][1]["expires_at"] is None


def test_a_token_is_revoked_once(world: World, run: Run) -> None:
    run("tokens", "create", "--role", "viewer")
    (token,) = run("tokens", "list", "--output", "json").document["tokens"]

    assert run("tokens", "revoke", token["token_id"], "--reason", "left the team").status == 0

    (listed,) = run("tokens", "list", "--output", "json").document["tokens"]
    assert (listed["reason"], bool(listed["revoked_at"])) == ("left the team", True)
    again = run("tokens", "revoke", token["token_id"], "--reason", "again")
    refused(again, "revoked already")
    refused(run("tokens", "revoke", "tok-0", "--reason", "x"), "tok-0", "tokens list")


def test_days_that_are_none_are_refused(world: World, run: Run) -> None:
    """A token of the past, or of no calendar."""
    assert run("tokens", "create", "--role", "viewer", "--days", "-1").status == 2
    refused(run("tokens", "create", "--role", "viewer", "--days", "9999999"), "is no date")
    assert run("tokens", "create", "--role", "owner").status == 2
    assert run("tokens", "list", "--output", "json").document["tokens"] == []
