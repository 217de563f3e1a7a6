"""Fixtures of the tests of commands."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from interfaces.cli.main import main
from tests.interfaces.commands import Answer, Run
from tests.world import World


@pytest.fixture
def make_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[World], Run]:
    """`hostledger WORDS` in HostFactory's environment for a world's instance."""

    def make(world: World) -> Run:
        monkeypatch.setenv("HF_PROVIDER_NAME", world.site.provider)
        monkeypatch.setenv("HF_PROVIDER_CONFDIR", world.site.conf_dir)
        monkeypatch.setenv("HF_PROVIDER_WORKDIR", world.site.work_dir)
        monkeypatch.setenv("HF_PROVIDER_LOGDIR", world.site.log_dir)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(world.root / "user"))
        for name, value in world.environ.items():
            monkeypatch.setenv(name, value)

        def call(*words: str) -> Answer:
            capsys.readouterr()
            status = main(words)
            return Answer(status, *capsys.readouterr())

        return call

    return make


@pytest.fixture
def run(world: World, make_run: Callable[[World], Run]) -> Run:
    """`hostledger WORDS` for the world's instance."""
    return make_run(world)
