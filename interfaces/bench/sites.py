"""A site to be measured: a provider instance in a directory of its own, and its store."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self

from application.failures import NotInstalled, StoreError
from domain.host_factory import HostFactory
from domain.template import Template
from interfaces.bench.past import PROVIDER, TEMPLATE, Life
from interfaces.read_side import Call, site_from

OTHERS = ("HF_", "PRO_", "PROVIDER_NAME", "HOSTLEDGER_", "AWS_", "OTEL_")
"""How variables begin that lead to another site, account or collector."""

STORES = ("sqlite", "json", "sql", "dynamodb")
SERVED = {
    "sqlite": "a file",
    "json": "files",
    "sql": "PostgreSQL, a server of its own on this machine that waits for its disk",
    "dynamodb": "the sandbox's emulator over HTTP: nothing is said of AWS's own times",
}
"""Store -> what keeps it here."""

APPENDED = {"dynamodb": 20}
"""Store -> events of one append of a past, where a thousand are too many."""


def templates(names: Iterable[str] = (TEMPLATE,)) -> list[dict[str, Any]]:
    """One template for each name, as IBM's file has them."""
    return [
        {
            "templateId": name,
            "maxNumber": 10_000,
            "imageId": "ami-0a1b2c3d4e5f60718",
            "subnetId": "subnet-0a1b2c3d",
            "vmType": "t3.medium",
            "attributes": {
                "type": ["String", "X86_64"],
                "ncpus": ["Numeric", "2"],
                "nram": ["Numeric", "4096"],
            },
        }
        for name in names
    ]


class BenchSite:
    """`kind` is one of STORES, `place` where its store is to be; `storage` is that section of a
    configuration, `endpoint` AWS's stand-in, `settings` are HOSTLEDGER_SECTION__KEY values."""

    def __init__(
        self,
        root: Path,
        kind: str,
        place: str,
        *,
        storage: Mapping[str, Any] | None = None,
        offered: list[dict[str, Any]] | None = None,
        endpoint: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.root = root
        self.kind = kind
        for name in ("conf", "work", "log"):
            (root / name).mkdir(parents=True)
        config = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint or "http://127.0.0.1:9"}
        own = {"storage": storage or {}}
        for name, document in (
            ("awsprov_config.json", config),
            ("awsprov_templates.json", {"templates": offered or templates()}),
            ("hostledger.json", own),
        ):
            (root / "conf" / name).write_text(json.dumps(document))
        kept = {n: v for n, v in os.environ.items() if not n.startswith(OTHERS)}
        self.environ = {
            **kept,
            "PWD": str(root),
            "HF_PROVIDER_NAME": PROVIDER,
            "HF_PROVIDER_CONFDIR": f"{root}/conf",
            "HF_PROVIDER_WORKDIR": f"{root}/work",
            "HF_PROVIDER_LOGDIR": f"{root}/log",
            "XDG_CONFIG_HOME": f"{root}/user",
            "HOSTLEDGER_WORKER__MODE": "external",
            "HOSTLEDGER_STORAGE__URL": place,
            **{n: os.environ[n] for n in os.environ if kind == "dynamodb" and n.startswith("AWS_")},
            **(settings or {}),
        }
        self.lives: list[Life] = []

    def call(self, verb: str) -> Call:
        """One of HostFactory's calls, in this process."""
        return Call(verb, self.environ, sys.executable)

    def side(self) -> Any:
        """The container over this site (`interfaces.write_side.container.WriteSide`)."""
        from interfaces.write_side.container import WriteSide

        return WriteSide(site=site_from(self.environ), environ=self.environ, process="bench")

    def create(self) -> None:
        """Make the store. Raises StoreError where there is one already."""
        from interfaces.write_side.stores import create

        create(self.side())

    def fill(self, lives: Iterable[Life]) -> None:
        """Let the ledger have these requests, whose machines run and were polled for by
        HostFactory, and a complete sweep that stays fresh."""
        from interfaces.write_side.stores import append_past

        side = self.side()
        offered = self.call("bench").compiled.template(TEMPLATE)
        assert offered is not None
        key = Template.key(PROVIDER, TEMPLATE)
        with closing(side.store()) as store:

            def commits() -> Iterator[tuple[str, Sequence[Any]]]:
                if store.get(Template, key) is None:
                    known = Template(Template.stream(key))
                    known.revise(PROVIDER, TEMPLATE, offered["revision"], offered["content"])
                    yield "", [known]
                seen = store.get(HostFactory, "") or HostFactory()
                for life in lives:
                    self.lives.append(life)
                    for commit in life.launch(seen):
                        yield life.request_id, commit

            append_past(store, commits(), APPENDED.get(self.kind, 1000))
            wall, boot_id, seconds = side.clock().now()
            notebook = side.storage().notebook(store, "default", "us-east-1")
            notebook.record_sweep((wall, boot_id, seconds + 1e6), 0)

    @property
    def machines(self) -> int:
        return sum(len(life.ids) for life in self.lives)

    def input(self, name: str, document: dict[str, Any]) -> str:
        """The path of a script's input."""
        path = self.root / name
        path.write_text(json.dumps(document))
        return str(path)


class Workshop:
    """Makes sites in one temporary directory, each on a store that is not there yet. `given` is the
    place that was named in the stead of those of our own: it is made once, and all share it."""

    def __init__(self, directory: str, storage: Mapping[str, Any], given: str | None) -> None:
        self.directory = directory
        self._storage = storage
        self._given = given
        self._number = 0
        self._servers: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def site(self, kind: str, **options: Any) -> BenchSite:
        """A new one, with its store made. Raises StoreError, NotInstalled."""
        self._number += 1
        root = Path(self.directory) / f"site-{self._number}"
        site = BenchSite(root, kind, self._place(kind, root), storage=self._storage, **options)
        if self._given is None or self._number == 1:
            site.create()
        return site

    def _place(self, kind: str, root: Path) -> str:
        if self._given is not None:
            return self._given
        if kind == "sqlite":
            return f"sqlite:{root}/work/hostledger/ledger.db"
        if kind == "json":
            return f"json:{root}/work/hostledger/json"
        server = self._server(kind)
        if kind == "sql":
            return str(server.database())
        return f"dynamodb://us-east-1/bench-{self._number}?endpoint={server.url}"

    def _server(self, kind: str) -> Any:
        """What serves stores of a kind, started when it is first asked for."""
        from interfaces.write_side.processes import dynamodb_process, postgresql_process

        if kind not in self._servers:
            if kind == "dynamodb":
                self._stack.enter_context(_keys_of_the_emulator())
            context = postgresql_process() if kind == "sql" else dynamodb_process()
            self._servers[kind] = self._stack.enter_context(context)
        return self._servers[kind]


KEYS = {"AWS_ACCESS_KEY_ID": "sandbox", "AWS_SECRET_ACCESS_KEY": "sandbox"}
"""The stand-ins take any."""


@contextmanager
def _keys_of_the_emulator() -> Iterator[None]:
    """Within: this process has no keys but those, and no profile."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
    os.environ.update(KEYS)
    try:
        yield
    finally:
        for name in KEYS:
            del os.environ[name]
        os.environ.update(before)


def stand_in(**options: Any) -> Any:
    """AWS's stand-in as a process of its own; a context manager with `url` and `control`. Raises
    NotInstalled."""
    from interfaces.write_side.processes import sandbox_process

    try:
        return sandbox_process(**options)
    except ModuleNotFoundError as error:
        raise NotInstalled(
            f"{error}: the stand-in for AWS is the extra `sandbox` "
            "(pip install 'hostledger[sandbox]')"
        ) from None


def kind_of(place: str) -> str:
    """Which of STORES a place in one line is. Raises StoreError."""
    scheme = place.partition(":")[0]
    kind = {"postgresql": "sql", "postgres": "sql"}.get(scheme, scheme)
    if kind not in STORES:
        raise StoreError(
            "--store names no store's place: sqlite:/FILE, json:/DIR, postgresql://USER@HOST/NAME "
            "or dynamodb://REGION/PREFIX?endpoint=URL is needed"
        )
    return kind
