"""What AWS's reasons say about the pools of an account, and for how long they are left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from application.ports import Shortage
from application.turn import Turn
from domain.capacity import HETEROGENEOUS, ON_DEMAND, SPOT, Pool, pools_of, price_type

AVOIDED_FOR = 180.0
"""Seconds in which a pool that had no capacity is left alone."""

GIVES_NOTHING = ("quota", "refused")
"""Classes of reasons that a pool's next launch would hear as well."""


class Avoided:
    def __init__(self, turn: Turn) -> None:
        self._kept = turn.kept
        """Pools that had none, and quotas and pools that are of no use to try."""

    def learn(self, content: dict[str, Any], shortages: Sequence[Shortage]) -> None:
        """Take in why a launch of a template gave fewer. A reason that names no pool of it is about
        all of its market."""
        pools = {str(pool): pool for pool in _all_pools(content)}
        for shortage in shortages:
            named = [shortage.pool]
            if shortage.pool not in pools:
                market = shortage.pool.rpartition("/")[2]
                named = [name for name, pool in pools.items() if pool.market == market]
            if shortage.kind in ("shortage", *GIVES_NOTHING):
                self._note("avoided", named)
            if shortage.kind in GIVES_NOTHING:
                self._note("hopeless", named)
            if shortage.kind == "quota" and shortage.pool in pools:
                self._note("hopeless", [pools[shortage.pool].quota])

    def _note(self, how: str, names: Sequence[str]) -> None:
        for name in names:
            self._kept.put(f"{how} {name}", True, AVOIDED_FOR)

    def admits(self, pool: Pool) -> bool:
        """Whether a pool may be asked just now."""
        return not self._kept.get(f"avoided {pool}") and not self._is_hopeless(pool)

    def leaves_none(self, content: dict[str, Any]) -> bool:
        """Whether no pool of a template, in whatever market, is of any use just now."""
        return all(self._is_hopeless(pool) for pool in _all_pools(content))

    def _is_hopeless(self, pool: Pool) -> bool:
        return any(self._kept.get(f"hopeless {what}") for what in (pool.quota, str(pool)))


def _all_pools(content: dict[str, Any]) -> list[Pool]:
    kind = price_type(content)
    markets = (SPOT, ON_DEMAND) if kind == HETEROGENEOUS else (kind,)
    return [pool for market in markets for pool in pools_of(content, market)]
