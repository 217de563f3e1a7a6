"""Policy: whenever machines are wanted, choose where they are bought, and have them launched there.

Requests that share a payload are put together, oldest first, and offered to the accounts in the
order of `provider.selection`; an account without a pool that has capacity, or that is down, is
passed over. The choice and its reason are in the intent.

An account that another worker works has its demand first; when it lets it lie, the next has it.
That two workers never launch for the same is not the order's doing but the commit's (`turn.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import IntegrityError

from application.demand import content_here, market_for, still_wanted
from application.provisioning import LAUNCHED, NOT_HERE, NOT_NOW, Provisioning
from application.turn import Turn
from domain.template import Template

SAME = ("provider", "template_id", "revision", "rc_account")
"""What requests share whose machines are launched by one call."""

LET_LIE = 30.0
"""Seconds in which another worker's account took nothing of a demand: it is passed over."""


class Choosing:
    """`held` are the accounts of this worker, `names` those of all, in the site's order."""

    def __init__(self, turn: Turn, held: Sequence[Provisioning], names: Sequence[str]) -> None:
        self._turn = turn
        self._held = {provisioning.turn.cloud.account: provisioning for provisioning in held}
        self._names = names
        self._lying: dict[tuple[str, ...], tuple[list[Any], float]] = {}
        """Group -> what it wants, and since when (boot clock) it has wanted just that."""
        self._last: dict[tuple[Any, ...], str] = {}
        """What was launched -> the account that had it last (round robin)."""

    def take_turn(self) -> None:
        """Form batches from open demand while buckets admit them at once. Raises LeaseLost."""
        turn = self._turn
        if turn.paused(launching=True):
            return
        turn.look_at_demand()
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
        let_lie = self._let_lie(groups)
        if not groups:
            return
        free = {name: account.free_calls() for name, account in self._held.items()}
        try:
            for group, requests in groups.items():
                content, market = contents[group[: len(SAME)]], group[len(SAME)]
                self._serve(content, market, requests, free, group in let_lie)
        except IntegrityError as error:
            turn.journal.info("demand looked at anew", message=str(error))

    def _let_lie(self, groups: dict[tuple[str, ...], list[dict[str, Any]]]) -> set[tuple[str, ...]]:
        """The groups of which nobody has taken anything for long."""
        now = self._turn.now()[2]
        lying = {}
        for group, requests in groups.items():
            wanted = [[r["request_id"], still_wanted(self._turn, r)] for r in requests]
            before = self._lying.get(group)
            lying[group] = before if before and before[0] == wanted else (wanted, now)
        self._lying = lying
        return {group for group, (_, since) in lying.items() if now - since >= LET_LIE}

    def _serve(
        self,
        content: dict[str, Any],
        market: str,
        requests: list[dict[str, Any]],
        free: dict[str, int],
        let_lie: bool,
    ) -> None:
        """Launch for requests that share a payload until they have all, or nobody has more."""
        outcome = LAUNCHED
        while requests and outcome == LAUNCHED and not self._turn.paused(launching=True):
            outcome = NOT_HERE
            passed: list[str] = []
            for account, reason in self._in_order(content, requests[0]):
                if account not in self._held and let_lie:
                    passed.append(account)
                    continue
                if account not in self._held:
                    outcome = NOT_NOW
                    break
                if free[account] < 1:
                    outcome = NOT_NOW
                    break
                if passed:
                    reason = f"{reason}; nothing to be had in {', '.join(passed)}"
                here = content_here(content, account)
                outcome = self._held[account].launch(here, market, requests, reason)
                if outcome != NOT_HERE:
                    free[account] -= 1
                    self._last[tuple(requests[0][key] for key in SAME)] = account
                    break
                passed.append(account)
            requests = [r for r in requests if still_wanted(self._turn, r) > 0]

    # -- which account ----------------------------------------------------------------------------

    def eligible(self, content: dict[str, Any]) -> list[str]:
        """The accounts that a template names, in the site's order; without any the first one."""
        named = content.get("accounts")
        if not named:
            return list(self._names[:1])
        return [name for name in self._names if name in named]

    def serves_elsewhere(self, asking: Provisioning, row: dict[str, Any]) -> bool:
        """Whether another account than the asking one may still serve a template. What another
        worker has learned of its own is not known here."""
        key = Template.key(row["provider"], row["template_id"])
        content = self._turn.work.template_content(key, row["revision"])
        others = [name for name in self.eligible(content) if self._held.get(name) is not asking]
        return any(name not in self._held or self._held[name].is_of_use(row) for name in others)

    def _in_order(self, content: dict[str, Any], request: dict[str, Any]) -> list[tuple[str, str]]:
        """The accounts that may serve it, the chosen one first, each with the reason."""
        names = self.eligible(content)
        if len(names) < 2:
            return [(name, "the only account") for name in names]
        settings = self._turn.settings
        selection: str = settings["selection"]
        facts: dict[str, dict[str, Any]] = settings["accounts"]
        if selection == "priority":
            names.sort(key=lambda name: facts[name]["priority"])
            return [(name, f"priority {facts[name]['priority']}") for name in names]
        if selection == "least_cost":

            def price(name: str) -> float:
                return float(content_here(content, name).get("price", float("inf")))

            names.sort(key=price)
            return [(name, f"costs {price(name):g} an hour") for name in names]
        if selection == "weighted":
            alive = self._turn.work.machines_by_account()

            def load(name: str) -> float:
                return alive.get(name, 0) / facts[name]["weight"]  # type: ignore[no-any-return]

            names.sort(key=load)
            return [
                (name, f"has {alive.get(name, 0)} machines at weight {facts[name]['weight']:g}")
                for name in names
            ]
        if selection == "round_robin":
            if len(self._held) < len(self._names):
                # Whose turn it was last only one worker would know: all draw the same lot.
                start = int(request["request_id"][-8:], 16) % len(names)
                return [(name, "by lot") for name in names[start:] + names[:start]]
            last = self._last.get(tuple(request[key] for key in SAME))
            start = names.index(last) + 1 if last in names else 0
            return [(name, "its turn") for name in names[start:] + names[:start]]
        return [(name, "first in order") for name in names]
