"""`hostledger config`: what is set, where that came from, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from infrastructure.configuration_keys import KEYS, schema
from tests.house.reference import DOCS
from tests.infrastructure.test_settings import KEYS as EVERY_KEY
from tests.infrastructure.test_settings import nested
from tests.interfaces.commands import Answer, Run, refused
from tests.world import World

REQUIREMENTS = Path(__file__).parent.parent / "fixtures" / "requirements"
"""The settings of the requirements, as they are printed there."""

KEY = "provider.aws.pending_timeout"
VARIABLE = "HOSTLEDGER_PROVIDER__AWS__PENDING_TIMEOUT"


@pytest.fixture
def site(make_world: Any) -> World:
    return make_world(config={})  # type: ignore[no-any-return]


@pytest.fixture
def run(site: World, make_run: Callable[[World], Run], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`hostledger WORDS` for the site, of which no variable of ours says anything."""
    call = make_run(site)
    for name in site.environ:
        if name.startswith(("HOSTLEDGER_", "AWS_REGION")):
            monkeypatch.delenv(name)
    return call


def own_file(site: World, document: dict[str, Any]) -> str:
    """The site's hostledger.json, with this in it."""
    site.write_own_config(document)
    return f"{site.site.conf_dir}/hostledger.json"


def ibm_file(site: World, **document: str) -> str:
    """The site's awsprov_config.json, with this in it."""
    site.write_config(document)
    return f"{site.site.conf_dir}/awsprov_config.json"


def shown(answer: Answer) -> dict[str, Any]:
    """Key -> its row."""
    return {row["key"]: row for row in answer.document["values"]}


def origin(run: Run, key: str, *words: str) -> tuple[Any, ...]:
    row = shown(run("config", "show", key, "--origin", "--output", "json", *words))[key]
    return row["value"], row["origin"], row["path"], row["name"]


# -- where a value comes from ---------------------------------------------------------------------


def test_each_source_comes_before_the_next(
    site: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default, IBM's file, ours, the environment, a flag: each in turn gives the value."""
    table = ("config", "show", KEY, "--origin")

    assert origin(run, KEY) == (180, "default", None, None)
    ibm = ibm_file(site, AWS_INSTANCE_PENDING_TIMEOUT_SEC="200")
    assert origin(run, KEY) == (200, "ibm_file", ibm, "AWS_INSTANCE_PENDING_TIMEOUT_SEC")
    assert f"IBM's file {ibm}: AWS_INSTANCE_PENDING_TIMEOUT_SEC" in run(*table).out
    own = own_file(site, nested(KEY, 210))
    assert origin(run, KEY) == (210, "file", own, KEY)
    assert f"file {own}\n" in run(*table).out
    monkeypatch.setenv(VARIABLE, "220")
    assert origin(run, KEY) == (220, "environment", None, VARIABLE)
    assert f"environment {VARIABLE}\n" in run(*table).out
    assert origin(run, KEY, "--set", f"{KEY}=230") == (230, "flag", None, KEY)
    assert f"flag {KEY}\n" in run(*table, "--set", f"{KEY}=230").out


def test_usual_variables_come_last(site: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_REGION counts where nothing else names a region, and is named as where it came from."""
    own_file(site, {})
    ibm_file(site)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")

    assert origin(run, "provider.aws.region") == ("eu-north-1", "environment", None, "AWS_REGION")


def test_what_one_key_says_of_others(site: World, run: Run) -> None:
    """A value that follows from another key has that key's origin."""
    own = own_file(site, {"storage": {"strategy": "dynamodb"}})
    url = "storage.url=postgresql://hf@db/ledger"

    assert origin(run, "storage.strategy") == ("dynamodb", "file", own, "storage.strategy")
    assert origin(run, "storage.strategy", "--set", url) == ("sql", "flag", None, "storage.url")
    inline = "performance.cpu.async_operations=false"
    said = origin(run, "worker.mode", "--set", inline)
    assert said == ("inline", "flag", None, "performance.cpu.async_operations")


def test_show_has_every_key_or_a_section(site: World, run: Run) -> None:
    assert tuple(shown(run("config", "show", "--output", "json"))) == KEYS
    some = run("config", "show", "provider.aws.timeouts", "--output", "json").document
    assert some["values"] == [
        {"key": "provider.aws.timeouts.connect_timeout", "value": 3.0},
        {"key": "provider.aws.timeouts.read_timeout", "value": 30.0},
    ]
    refused(run("config", "show", "provider.aw"), "the nearest is provider.aws")


def test_a_flag_changes_what_a_command_does(site: World, run: Run) -> None:
    """Any command that takes --config takes --set, and acts by it."""
    own_file(site, {"worker": {"mode": "external"}})

    def mode(*words: str) -> Any:
        return run("worker", "status", "--output", "json", *words).document["mode"]

    assert mode() == "external"
    assert mode("--set", "worker.mode=inline") == "inline"
    assert mode() == "external"


def test_a_flag_holds_while_the_templates_are_broken(site: World, run: Run) -> None:
    """They are told of, and a server that is started with a port starts as one without."""
    Path(site.site.conf_dir, "awsprov_templates.json").write_text("[")

    answer = run("worker", "status", "--output", "json", "--set", "worker.mode=inline")

    assert (answer.status, answer.document["mode"]) == (0, "inline")
    assert "the site's files are not taken over" in answer.err


def test_the_flags_of_the_server_are_flags(site: World, run: Run) -> None:
    """They are validated as every setting is, before anything listens."""
    refused(run("server", "run", "--port", "70000"), "--set: server.port", "65535")


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (
            ("--set", "wroker.mode=auto"),
            "--set: wroker.mode: is no key; the nearest is worker.mode",
        ),
        (("--set", "worker.mode=sometimes"), "--set: worker.mode"),
    ],
)
def test_a_bad_flag_is_refused(site: World, run: Run, words: tuple[str, ...], near: str) -> None:
    """Not passed over for the last good configuration."""
    assert run("worker", "status").status == 0

    refused(run("worker", "status", *words), near)
    refused(run("config", "show", *words), near)


def test_a_flag_without_a_value(site: World, run: Run) -> None:
    answer = run("config", "show", "--set", "worker.mode")

    assert answer.status == 2
    assert "--set: KEY=VALUE is needed" in answer.err


def test_no_secret_is_shown(site: World, run: Run) -> None:
    """Neither passwords in URLs, nor what a query or a program's words call a secret."""
    own_file(
        site,
        {
            "storage": {"sql_strategy": {"url": "postgresql://hf:s3cret@db/x?sslpassword=s3cret"}},
            "provider": {
                "aws": {
                    "proxy": "http://hf:s3c@ret@proxy.example:3128",
                    "credential_script": "/opt/sts.sh --role a --api-key s3cret token=s3cret",
                },
                "accounts": {
                    "home": {"region": "eu-west-1", "endpoint_url": "https://u:s3cret@ec2.example"}
                },
            },
            "monitoring": {
                "performance": {"alerts": {"webhook_url": "https://hooks.example/T0/s3cret"}}
            },
        },
    )
    for form in ("table", "json", "yaml"):
        out = run("config", "show", "--origin", "--output", form).out
        assert "s3c" not in out and "ret@" not in out
        assert "postgresql://***@db/x?sslpassword=***" in out
        assert "/opt/sts.sh --role a --api-key *** token=***" in out
        assert "https://hooks.example/***" in out


@pytest.mark.parametrize("words", [("list",), ("cancel", "req-1", "--reason", "x")])
def test_no_secret_of_a_named_store_is_shown(site: World, run: Run, words: tuple[str, ...]) -> None:
    answer = run("--store", "mysql://hf:s3cret@db/x", "requests", *words)

    refused(answer, "--store" if words[0] == "cancel" else "mysql://***@db/x is no store's place")
    assert "s3cret" not in answer.err


# -- what is refused ------------------------------------------------------------------------------


def test_validate_the_files_in_force(site: World, run: Run) -> None:
    own = own_file(site, {"worker": {"mode": "external"}})
    answer = run("config", "validate")

    assert answer.status == 0
    assert f"{own}: good, and gives the value of 1 keys" in answer.out
    own_file(site, {"worker": {"mod": "external"}})
    refused(run("config", "validate"), f"{own}: worker.mod: is no key; the nearest is worker.mode")


def test_validate_a_file_of_either_kind(site: World, run: Run, tmp_path: Path) -> None:
    """By its name a file is IBM's, in which unknown keys are one warning."""
    ours = tmp_path / "new.json"
    ours.write_text('{"worker": {"mode": "inline"}}  // a try')
    theirs = tmp_path / "awsprov_config.json"
    theirs.write_text('{"AWS_REGION": "eu-west-1", "Zeta": 1, "eta": 2}')

    told = run("config", "validate", str(ours), "--output", "json").document
    assert str(ours) in told["files"]
    assert "worker.mode" in told["keys"]
    answer = run("config", "validate", str(theirs))
    assert answer.status == 0
    assert answer.out.count("unknown keys, ignored: Zeta, eta") == 1
    refused(run("config", "validate", str(tmp_path / "none.json")), "cannot be read")


@pytest.mark.parametrize(
    "name",
    [
        "batch-sizes",
        "connections",
        "cpu",
        "dynamodb",
        "json-storage",
        "memory",
        "monitoring",
        "processing",
        "sql-storage",
        "lazy-loading",
    ],
)
def test_the_settings_of_the_requirements(site: World, run: Run, name: str) -> None:
    """Each block of them is a configuration as it is printed, comments and all."""
    path = REQUIREMENTS / f"{name}.json"

    told = run("config", "validate", str(path), "--output", "json")

    assert told.status == 0, told.err
    assert told.document["keys"]
    named = told.document["warnings"]
    assert [w for w in named if str(path) in w] == [w for w in named if "auto_scaling" in w]
    assert any("auto_scaling" in warning for warning in named) == (name == "dynamodb")


def test_every_block_of_the_requirements_is_tested() -> None:
    (mark,) = test_the_settings_of_the_requirements.pytestmark  # type: ignore[attr-defined]

    assert sorted(mark.args[1]) == sorted(path.stem for path in REQUIREMENTS.iterdir())


# -- what there is --------------------------------------------------------------------------------


def test_explain_a_key(site: World, run: Run) -> None:
    """What it is for, what it takes, its default and variable, its value and whence."""
    own = own_file(site, {"worker": {"mode": "external"}})
    answer = run("config", "explain", "worker.mode")

    assert answer.status == 0
    assert answer.out.startswith("Who works: a worker that the scripts start")
    for line in (
        "takes        one of auto, external, inline",
        "default      auto",
        "environment  HOSTLEDGER_WORKER__MODE",
        "value        external",
        f"from         file {own}",
    ):
        assert line in answer.out.splitlines()
    document = run("config", "explain", "worker.mode", "--output", "json").document
    assert (document["value"], document["origin"], document["path"]) == ("external", "file", own)


def test_without_an_instance(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a key is for and whether a file is good can be asked before there is one."""
    monkeypatch.delenv("HF_PROVIDER_NAME")
    file = tmp_path / "mine.json"
    file.write_text('{"worker": {"mode": "inline"}}')

    assert "value  " in run("config", "explain", "worker.mode").out
    assert run("config", "validate", str(file)).status == 0
    shown_ = run("config", "show", "worker.mode", "--origin", "--config", str(file)).out
    assert f"file {file}" in shown_
    refused(run("config", "show"), "no provider instance is known")
    refused(run("config", "explain", "worker.mode", "--provider", "other"), "other")


def test_explain_where_the_configuration_is_broken(site: World, run: Run) -> None:
    """What a key is for is told in any case; then what is wrong."""
    own_file(site, {"worker": {"mode": "sometimes"}})

    answer = run("config", "explain", "worker.lease_time")
    assert answer.status == 1
    assert "takes        a number above 0" in answer.out
    assert "value " not in answer.out
    assert "worker.mode" in answer.err
    refused(
        run("config", "explain", "worker.mood"), "worker.mood is no key; the nearest is worker.m"
    )


def test_explain_every_key(site: World, run: Run) -> None:
    for key in KEYS:
        answer = run("config", "explain", key, "--output", "json")
        assert answer.document["key"] == key
        assert answer.document["remark"]
        assert answer.document["takes"]


def test_the_schema_is_printed(run: Run) -> None:
    """The very text of docs/reference, which a test compares with the code."""
    assert run("config", "schema").out == (DOCS / "configuration.schema.json").read_text()


def test_the_schema_takes_what_we_take() -> None:
    """Every key with its default and another value; no key that is none, and no wrong type."""
    check = fastjsonschema.compile(schema())

    for key, default, value, _ in EVERY_KEY:
        check(nested(key, list(default) if isinstance(default, tuple) else default))
        check(nested(key, value))
    for wrong in (
        {"worker": {"mod": "auto"}},
        {"worker": {"mode": "sometimes"}},
        {"provider": {"accounts": {"home": {"regio": "eu-west-1"}}}},
        {"provider": {"accounts": {"my home": {}}}},
        {"provider": {"aws": {"buckets": {"RunInstance": [1, 1]}}}},
        {"provider": {"aws": {"max_inflight": 0}}},
        {"provider": {"aws": {"launch_retries": 11}}},
        {"storage": {"sql_strategy": {"pool_timeout": 0}}},
        {"performance": {"memory": {"max_cache_size": "100 boxes"}}},
    ):
        with pytest.raises(fastjsonschema.JsonSchemaValueException):
            check(wrong)
