"""What programs are given: JSON, JSON lines and YAML say the same."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import pytest
import yaml

from interfaces.cli import output
from tests.interfaces.commands import Run, fulfilled, refused
from tests.world import World


def lines(text: str) -> list[Any]:
    """What stands in the lines."""
    return [json.loads(line) for line in text.splitlines()]


def test_every_form_of_an_output_says_the_same(world: World, run: Run) -> None:
    """A listing is a line a row, a thing with parts is one line, and YAML is the whole document."""
    request_id, machine_ids = fulfilled(world, 2)
    listings = {
        ("machines", "list"): "machines",
        ("batches", "list"): "batches",
        ("audit", "tail"): "events",
        ("audit", "history", request_id): "events",
        ("audit", "diff", "--from", "1"): "changes",
        ("report", "usage", "--until", "2100-01-01"): "rows",
        ("orphans", "list"): "orphans",
    }
    things = [("requests", "show", request_id), ("audit", "explain", machine_ids[0])]

    for words in [*listings, *things]:
        document = run(*words, "--output", "json").document
        told = lines(run(*words, "--output", "jsonl").out)
        blocks = run(*words, "--output", "yaml").out

        assert told == (document[listings[words]] if words in listings else [document])
        assert yaml.safe_load(blocks) == document
        assert "{" not in blocks.replace("{}", "")


def test_nothing_to_tell_in_each_form(world: World, run: Run) -> None:
    """No row is no line, and an empty list in YAML."""
    for words in (("requests", "list"), ("audit", "diff", "--from", "1", "--to", "1")):
        document = run(*words, "--output", "json").document

        assert run(*words, "--output", "jsonl").out == ""
        assert yaml.safe_load(run(*words, "--output", "yaml").out) == document


WORDS = ["yes", "no", "null", "1e3", "0o7", "1:30", "~", "", " a ", "#", "- a", "{", "a: b"]


def test_text_stays_text_in_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a word looks like, and whatever steers a terminal, comes back as it was."""
    said = {
        "words": [*WORDS, "line\nline", "\x1b[31m", "\x85", "é", "😀"],
        "number": 1.5,
        "it": None,
    }

    output.show_data(argparse.Namespace(output="yaml"), said)

    text = capsys.readouterr().out
    assert yaml.safe_load(text) == said
    assert "\x1b" not in text and "\x85" not in text


def test_yaml_without_its_library(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named, before anything is done."""
    monkeypatch.setitem(sys.modules, "yaml", None)

    answer = run("pause", "launching", "--reason", "a test", "--output", "yaml")

    refused(answer, "hostledger[yaml]", "--output json")
    assert run("store", "status", "--output", "json").document["paused"] is None
