"""Policy: whenever machines are wanted, choose where they are bought, and have them launched there.

Requests that share a payload are put together, oldest first, and offered to the accounts in the
order of `provider.selection`; an account without a pool that has capacity, or that is down, is
passed over. The choice and its reason are in the intent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from application.demand import content_here, market_for, still_wanted
from application.provisioning import LAUNCHED, NOT_HERE, NOT_NOW, Provisioning
from application.turn import Turn
from domain.template import Template

SAME = ("provider", "template_id", "revision", "rc_account")
"""What requests share whose machines are launched by one call."""


class Choosing:
    """`accounts` are in the site's order."""

    def __init__(self, turn: Turn, accounts: Sequence[Provisioning]) -> None:
        self._turn = turn
        self._accounts = accounts
        self._last: dict[tuple[Any, ...], str] = {}
        """What was launched -> the account that had it last (round robin)."""

    def take_turn(self) -> None:
        """Form batches from open demand while buckets admit them at once. Raises LeaseLost."""
        turn = self._turn
        if turn.paused(launching=True):
            return
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        contents: dict[tuple[str, ...], dict[str, Any]] = {}
        for request in turn.work.open_requests():
            if still_wanted(turn, request) <= 0:
                continue
            what = tuple(request[key] for key in SAME)
            content = contents.get(what)
            if content is None:
                key = Template.key(request["provider"], request["template_id"])
                content = turn.work.template_content(key, request["revision"])
                if request["rc_account"]:
                    content["rc_account"] = request["rc_account"]
                contents[what] = content
            alone = request["request_id"] if content.get("all_or_nothing") else ""
            group = (*what, market_for(turn, content, request), alone)
            groups.setdefault(group, []).append(request)
        if not groups:
            return
        free = {p.turn.cloud.account: p.free_calls() for p in self._accounts}
        for group, requests in groups.items():
            self._serve(contents[group[: len(SAME)]], group[len(SAME)], requests, free)

    def _serve(
        self,
        content: dict[str, Any],
        market: str,
        requests: list[dict[str, Any]],
        free: dict[str, int],
    ) -> None:
        """Launch for requests that share a payload until they have all, or nobody has more."""
        outcome = LAUNCHED
        while requests and outcome == LAUNCHED and not self._turn.paused(launching=True):
            outcome = NOT_HERE
            passed: list[str] = []
            for provisioning, reason in self._in_order(content, requests[0]):
                account = provisioning.turn.cloud.account
                if free[account] < 1:
                    outcome = NOT_NOW
                    break
                if passed:
                    reason = f"{reason}; nothing to be had in {', '.join(passed)}"
                here = content_here(content, account)
                outcome = provisioning.launch(here, market, requests, reason)
                if outcome != NOT_HERE:
                    free[account] -= 1
                    self._last[tuple(requests[0][key] for key in SAME)] = account
                    break
                passed.append(account)
            requests = [r for r in requests if still_wanted(self._turn, r) > 0]

    # -- which account ----------------------------------------------------------------------------

    def eligible(self, content: dict[str, Any]) -> list[Provisioning]:
        """The accounts that a template names, in the site's order; without any the first one."""
        named = content.get("accounts")
        if not named:
            return list(self._accounts[:1])
        return [p for p in self._accounts if p.turn.cloud.account in named]

    def serves_elsewhere(self, asking: Provisioning, row: dict[str, Any]) -> bool:
        """Whether another account than the asking one may still serve a template."""
        key = Template.key(row["provider"], row["template_id"])
        content = self._turn.work.template_content(key, row["revision"])
        return any(other is not asking and other.is_of_use(row) for other in self.eligible(content))

    def _in_order(
        self, content: dict[str, Any], request: dict[str, Any]
    ) -> list[tuple[Provisioning, str]]:
        """The accounts that may serve it, the chosen one first, each with the reason."""
        accounts = self.eligible(content)
        if len(accounts) < 2:
            return [(account, "the only account") for account in accounts]
        settings = self._turn.settings
        selection: str = settings["selection"]
        facts: dict[str, dict[str, Any]] = settings["accounts"]

        def name(account: Provisioning) -> str:
            return account.turn.cloud.account

        if selection == "priority":
            accounts.sort(key=lambda a: facts[name(a)]["priority"])
            return [(a, f"priority {facts[name(a)]['priority']}") for a in accounts]
        if selection == "least_cost":

            def price(account: Provisioning) -> float:
                here = content_here(content, name(account))
                return float(here.get("price", float("inf")))

            accounts.sort(key=price)
            return [(a, f"costs {price(a):g} an hour") for a in accounts]
        if selection == "weighted":
            alive = self._turn.work.machines_by_account()

            def load(account: Provisioning) -> float:
                return alive.get(name(account), 0) / facts[name(account)]["weight"]  # type: ignore[no-any-return]

            accounts.sort(key=load)
            return [
                (a, f"has {alive.get(name(a), 0)} machines at weight {facts[name(a)]['weight']:g}")
                for a in accounts
            ]
        if selection == "round_robin":
            last = self._last.get(tuple(request[key] for key in SAME))
            names = [name(account) for account in accounts]
            start = names.index(last) + 1 if last in names else 0
            return [(a, "its turn") for a in accounts[start:] + accounts[:start]]
        return [(a, "first in order") for a in accounts]
