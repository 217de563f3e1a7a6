"""What must hold after every step of a simulation, whatever happened in it."""

from __future__ import annotations

import traceback
from contextlib import closing
from typing import TYPE_CHECKING, Any

from infrastructure.event_store.verification import verify
from interfaces.read_side import Call, verify_read_models

if TYPE_CHECKING:
    from tests.world import World

DEPLOYMENT, BATCH = "hostledger:deployment", "hostledger:batch"


class Broken(AssertionError):
    """A promise does not hold: which, and what was found in its place."""

    def __init__(self, promise: str, found: Any) -> None:
        super().__init__(f"{promise}: {found}")
        self.promise = promise


def keep(promise: str, found: Any) -> None:
    """Raises Broken where anything was found."""
    if found:
        raise Broken(promise, found)


class Promises:
    """Those of one site. `after_step` is cheap; `read_models` and `log` read the whole log."""

    def __init__(self, site: World) -> None:
        self._site = site
        self._end = (0, "")

    def after_step(self) -> None:
        """Raises Broken."""
        self._log_only_grows()
        self._nobody_has_more_than_asked()
        self._what_lives_was_intended()

    def _log_only_grows(self) -> None:
        query = self._site.query
        count, last = query("SELECT count(*), max(position) FROM events")[0]
        keep("the log is contiguous", count != last and f"{count} events up to {last}")
        position, chain = self._end
        if position:
            (there,) = query("SELECT chain FROM events WHERE position = ?", position)[0]
            keep("what is recorded stays as it is", there != chain and f"event {position}")
        self._end = query("SELECT position, chain FROM events WHERE position = ?", last)[0]

    def _nobody_has_more_than_asked(self) -> None:
        """In units: over by less than one machine."""
        over = self._site.query(
            "SELECT r.request_id, r.machine_count, sum(m.units) FROM requests r "
            "JOIN machines m ON m.request_id = r.request_id "
            "WHERE m.alive = 1 AND m.owed = '' GROUP BY r.request_id "
            "HAVING sum(m.units) - max(m.units) >= r.machine_count"
        )
        keep("a request gets at most what it asked for", over)

    def _what_lives_was_intended(self) -> None:
        """An instance that carries our tag is the ledger's, or one of a launch that it intended and
        that was not refused: at most as many of it as were intended."""
        live = self._site.sandbox.live_instances({DEPLOYMENT: self._site.deployment})
        unknown: dict[str, list[str]] = {}
        owned = self._site.owned()
        for machine_id, facts in live.items():
            if machine_id not in owned:
                unknown.setdefault(facts["tags"].get(BATCH, ""), []).append(machine_id)
        if not unknown:
            return
        intended = {
            batch_id: (state, count)
            for batch_id, state, count in self._site.query(
                "SELECT batch_id, state, machine_count FROM batches"
            )
        }
        for batch_id, ids in unknown.items():
            state, count = intended.get(batch_id, ("not intended", 0))
            wrong = state in ("not intended", "rejected") or len(ids) > count
            keep(
                "what lives is the ledger's or was intended",
                wrong and f"{ids} of {batch_id or 'no batch'}, {state}, {count} machines",
            )

    def read_models(self) -> None:
        """They are what the events make. Raises Broken."""
        call = Call("verify", self._site.environ, "python", site=self._site.site)
        found = verify_read_models(call, lambda done, of: None)
        wrong = found["differences"] or found["failed"]
        keep("read models equal a replay", wrong and found)

    def log(self) -> None:
        """Every digest and the chain. Raises Broken."""
        with closing(self._site.storage().raw_log()) as log:
            keep("the log proves itself", verify(log, {})["findings"])

    def agreement(self) -> None:
        """When all is quiet: what lives is exactly what the ledger owns. Raises Broken."""
        live, owned = self._site.live(), self._site.owned()
        keep(
            "what lives is what the ledger owns",
            live != owned and f"not owned {sorted(live - owned)}, not there {sorted(owned - live)}",
        )
        try:
            self._site.assert_agreement()
        except AssertionError as error:
            *_, line = traceback.extract_tb(error.__traceback__)
            raise Broken("AWS and the ledger agree", f"{error} ({line.line})") from error

    def nothing_left(self) -> None:
        """All was returned, so that nothing of ours is at AWS. Raises Broken."""
        self.agreement()
        keep("nothing lives on", sorted(self._site.live()))
        keep("nothing is left", self._site.leftovers())
