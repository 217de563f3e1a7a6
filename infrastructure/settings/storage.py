"""What the ledger is kept in, and where."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from infrastructure.settings.kinds import (
    Count,
    Endpoint,
    Path,
    Region,
    Seconds,
    Section,
    Text,
    Whole,
)
from infrastructure.storage.address import sections_of


def _store_place(url: str | None) -> str | None:
    if url is not None:
        sections_of(url)
    return url


def _postgresql(url: str | None) -> str | None:
    if url is None or re.match(r"postgres(ql)?://", url):
        return url
    raise ValueError("postgresql://USER@HOST/NAME is needed")


Percent = Annotated[Whole, Field(ge=20, le=90)]
"""What Application Auto Scaling takes for DynamoDB (its user guide, target tracking)."""
OfThousandOrZero = Annotated[Whole, Field(ge=0, le=1000)]
TablePrefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
PostgresqlUrl = Annotated[Text, AfterValidator(_postgresql)]
StorePlace = Annotated[Text, AfterValidator(_store_place)]


class SqliteStrategy(Section):
    """Where the SQLite ledger lies; None: below `$HF_PROVIDER_WORKDIR`."""

    path: Path = None
    """The ledger's file, an absolute path on a local disk. None: `ledger.db` in
    `$HF_PROVIDER_WORKDIR/hostledger`."""


class SqlStrategy(Section):
    """PostgreSQL, and SQLAlchemy's pool in worker and server."""

    url: PostgresqlUrl = None
    """`postgresql://USER@HOST/NAME`, with libpq's parameters after a `?`. None: the file of
    `sqlite_strategy`. A password is better kept in `~/.pgpass` (libpq reads it) than here."""
    pool_size: Count = 5
    """Connections that the pool keeps open."""
    max_overflow: OfThousandOrZero = 10
    """Connections beyond those, closed when they are given back."""
    pool_timeout: Seconds = 10
    """Seconds to wait for a connection when all are in use."""
    pool_recycle: Seconds = 1800
    """Seconds after which a connection is opened anew."""
    enable_query_cache: bool = True
    """Whether worker and server keep answers until the log goes on."""
    query_cache_size: Count = 500
    """Answers kept."""


class AutoScaling(Section):
    """Application Auto Scaling of tables with provisioned capacity."""

    enabled: bool = False
    """Whether `store init` registers the tables with it; only with `billing_mode` PROVISIONED."""
    target_utilization: Percent = 70
    """Percent of the capacity in use that is aimed at."""
    min_read_capacity: Count = 5
    """Read capacity units, at least."""
    max_read_capacity: Count = 1000
    """Read capacity units, at most."""
    min_write_capacity: Count = 5
    """Write capacity units, at least."""
    max_write_capacity: Count = 1000
    """Write capacity units, at most."""


class DynamodbStrategy(Section):
    """Tables in DynamoDB."""

    table_prefix: TablePrefix = "hostledger"
    """Begins the tables' names."""
    region: Region = None
    """The tables' region. None: `provider.aws.region`."""
    endpoint_url: Endpoint = None
    """Another endpoint than AWS's own."""
    billing_mode: Literal["PAY_PER_REQUEST", "PROVISIONED"] = "PAY_PER_REQUEST"
    """How `store init` makes the tables."""
    auto_scaling: AutoScaling = AutoScaling()


class JsonStrategy(Section):
    """JSON lines that a person reads with `less`."""

    base_path: Path = None
    """The directory, an absolute path on a local disk. None: `json` in
    `$HF_PROVIDER_WORKDIR/hostledger`."""
    storage_type: Literal["single_file", "split_files"] = "single_file"
    """`log.jsonl` alone, or a file for each stream beside it too."""
    enable_compression: bool = False
    """One gzip member a commit: `zless` reads it."""
    cache_size: Count = 500
    """Streams that worker and server keep in memory."""
    write_buffer_size: Count = 65536
    """Bytes gathered for one write of a commit."""
    sync_writes: bool = True
    """Whether a command waits for the disk. False: a power loss may lose the last ones; launches
    and their outcomes are always on disk before they are told."""


class Storage(Section):
    """What the ledger is kept in."""

    url: StorePlace = None
    """Strategy and place in one: `sqlite:/FILE`, `json:/DIR`, `postgresql://USER@HOST/NAME` or
    `dynamodb://REGION/PREFIX?endpoint=URL`. None: as the keys below say."""
    strategy: Literal["sqlite", "sql", "dynamodb", "json"] = "sqlite"
    """What the ledger is kept in: a SQLite file, PostgreSQL (sql; without its url the same SQLite
    file, through SQLAlchemy), DynamoDB tables, or JSON lines."""
    group: Text = None
    """A group of this machine whose members may read the files of `sqlite` and `json` and change
    nothing: auditors. Given to them when a store is made, activated or migrated and when a worker
    starts. None: their owner alone."""
    sqlite_strategy: SqliteStrategy = SqliteStrategy()
    sql_strategy: SqlStrategy = SqlStrategy()
    dynamodb_strategy: DynamodbStrategy = DynamodbStrategy()
    json_strategy: JsonStrategy = JsonStrategy()

    @model_validator(mode="before")
    @classmethod
    def _follow_url(cls, values: Any) -> Any:
        """The url stands for strategy and place together, whatever else is said of them."""
        url = values.get("url") if isinstance(values, dict) else None
        if not isinstance(url, str) or not url.strip():
            return values
        try:
            said = sections_of(url.strip())
        except ValueError:
            return values  # said of the key itself
        merged = {**values, "strategy": said.pop("strategy")}
        for section, keys in said.items():
            merged[section] = {**values.get(section, {}), **keys}
        return merged
