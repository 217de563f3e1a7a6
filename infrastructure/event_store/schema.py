"""The SQLite schema: the log, what keeps it honest, the read tables, and the worker's notebook.

Numbered, forward only: `PRAGMA user_version` is `sqlite_file.SCHEMA_VERSION`. A new store gets
version 1 and then each of MIGRATIONS, as an old one does when it is opened; a migration only adds,
or drops an index that no statement names, so that a worker of the release before can finish its
turn on it.
"""

LOG = """
CREATE TABLE events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    topic TEXT NOT NULL,
    class_version INTEGER NOT NULL,
    recorded_at TEXT NOT NULL,
    metadata TEXT NOT NULL,
    data TEXT NOT NULL,
    digest TEXT NOT NULL,
    chain TEXT NOT NULL,
    UNIQUE (stream, version)
);
CREATE INDEX events_by_topic ON events (topic, position);
CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    deployment TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    inode INTEGER NOT NULL
);
CREATE TABLE commands (
    command_id TEXT PRIMARY KEY,
    result TEXT NOT NULL,
    position INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE tracking (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE bodies (
    digest TEXT PRIMARY KEY,
    body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE projections (
    name TEXT PRIMARY KEY,
    failed_at INTEGER NOT NULL,
    error TEXT NOT NULL
) WITHOUT ROWID;
"""

READ_MODELS = """
CREATE TABLE requests (
    request_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    provider TEXT NOT NULL,
    template_id TEXT NOT NULL,
    revision TEXT NOT NULL,
    machine_count INTEGER NOT NULL,
    status TEXT NOT NULL,
    state TEXT NOT NULL,
    message TEXT NOT NULL,
    final INTEGER NOT NULL,
    dealt INTEGER NOT NULL,
    assigned INTEGER NOT NULL,
    claimed INTEGER NOT NULL,
    stopped INTEGER NOT NULL,
    fulfilment_deadline REAL NOT NULL,
    source TEXT NOT NULL,
    seen INTEGER NOT NULL,
    answered_final INTEGER NOT NULL,
    position INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    boot_seconds REAL NOT NULL,
    updated_at TEXT NOT NULL,
    final_at TEXT NOT NULL,
    fragment TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX requests_by_status ON requests (status);
CREATE INDEX requests_by_creation ON requests (created_at);
CREATE INDEX requests_open ON requests (position) WHERE final = 0;
CREATE INDEX requests_unseen ON requests (position) WHERE kind = 'request' AND seen = 0;
CREATE TABLE machines (
    machine_id TEXT PRIMARY KEY,
    request_id TEXT NOT NULL,
    return_id TEXT NOT NULL,
    batch_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    template_id TEXT NOT NULL,
    revision TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    zone TEXT NOT NULL,
    instance_type TEXT NOT NULL,
    price_type TEXT NOT NULL,
    name TEXT NOT NULL,
    private_ip_address TEXT NOT NULL,
    launch_time INTEGER NOT NULL,
    status TEXT NOT NULL,
    result TEXT NOT NULL,
    message TEXT NOT NULL,
    alive INTEGER NOT NULL,
    owed TEXT NOT NULL,
    seen INTEGER NOT NULL,
    position INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    boot_seconds REAL NOT NULL,
    updated_at TEXT NOT NULL,
    fragment TEXT NOT NULL,
    return_fragment TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX machines_by_request ON machines (request_id, position, machine_id);
CREATE INDEX machines_by_status ON machines (status);
CREATE INDEX machines_by_name ON machines (name);
CREATE INDEX machines_alive ON machines (alive, status, machine_id) WHERE alive = 1;
CREATE INDEX machines_owed ON machines (zone) WHERE alive = 1 AND owed <> '';
CREATE INDEX machines_unseen ON machines (alive, seen, machine_id) WHERE alive = 1 AND seen = 0;
CREATE TABLE returned_machines (
    return_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    machine_id TEXT NOT NULL,
    name TEXT NOT NULL,
    ours INTEGER NOT NULL,
    fragment TEXT,
    PRIMARY KEY (return_id, ordinal)
) WITHOUT ROWID;
CREATE TABLE templates (
    template_key TEXT PRIMARY KEY,
    provider TEXT NOT NULL,
    template_id TEXT NOT NULL,
    revision TEXT NOT NULL,
    retired INTEGER NOT NULL,
    content TEXT NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE template_revisions (
    revision_key TEXT PRIMARY KEY,
    content TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE batches (
    batch_id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    token TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    pool TEXT NOT NULL,
    provider TEXT NOT NULL,
    template_id TEXT NOT NULL,
    revision TEXT NOT NULL,
    payload TEXT NOT NULL,
    claims TEXT NOT NULL,
    machine_count INTEGER NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    position INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    boot_seconds REAL NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX batches_open ON batches (position) WHERE state IN ('open', 'doubtful');
CREATE INDEX batches_rejected ON batches (claims) WHERE state = 'rejected';
CREATE TABLE terminations (
    termination_id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    zone TEXT NOT NULL,
    machine_ids TEXT NOT NULL,
    reason TEXT NOT NULL,
    position INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX terminations_open ON terminations (position) WHERE state = 'open';
"""

NOTEBOOK = """
CREATE TABLE leases (
    account TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    program_version TEXT NOT NULL,
    fence INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    expires REAL NOT NULL,
    locked INTEGER NOT NULL,
    successor TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE sweeps (
    account TEXT PRIMARY KEY,
    began_at REAL NOT NULL,
    boot_id TEXT NOT NULL,
    boot_seconds REAL NOT NULL,
    instances INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE cloud_states (
    machine_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    boot_seconds REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE orphans (
    machine_id TEXT PRIMARY KEY,
    batch_id TEXT NOT NULL,
    state TEXT NOT NULL,
    zone TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    launch_time INTEGER NOT NULL,
    sweeps INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE batch_sweeps (
    batch_id TEXT PRIMARY KEY,
    wall REAL NOT NULL,
    boot_id TEXT NOT NULL,
    boot_seconds REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE calling (
    name TEXT PRIMARY KEY,
    seconds REAL NOT NULL,
    boot_id TEXT NOT NULL,
    last REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE unseen (
    id TEXT PRIMARY KEY,
    seconds REAL NOT NULL
) WITHOUT ROWID;
"""
"""What the worker remembers between turns. Not history and not a read model: it may be emptied,
and the worker then only takes longer to be sure."""

MIGRATIONS = {
    2: """
ALTER TABLE requests ADD COLUMN rc_account TEXT NOT NULL DEFAULT '';
ALTER TABLE machines ADD COLUMN units INTEGER NOT NULL DEFAULT 1;
ALTER TABLE machines ADD COLUMN protected TEXT NOT NULL DEFAULT '';
ALTER TABLE machines ADD COLUMN interrupted TEXT NOT NULL DEFAULT '';
ALTER TABLE machines ADD COLUMN interrupted_until INTEGER NOT NULL DEFAULT 0;
CREATE INDEX machines_interrupted ON machines (machine_id)
    WHERE alive = 1 AND interrupted_until > 0;
CREATE INDEX machines_by_batch ON machines (batch_id);
ALTER TABLE batches ADD COLUMN api TEXT NOT NULL DEFAULT 'RunInstances';
ALTER TABLE batches ADD COLUMN launch_template TEXT NOT NULL DEFAULT '';
ALTER TABLE batches ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE batches ADD COLUMN settlement TEXT NOT NULL DEFAULT '';
CREATE INDEX batches_filling ON batches (position) WHERE state = 'filling';
CREATE INDEX batches_of_template ON batches (launch_template)
    WHERE launch_template <> '' AND state IN ('open', 'doubtful', 'filling');
CREATE TABLE fleets (
    batch_id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    api TEXT NOT NULL,
    fleet_id TEXT NOT NULL,
    fleet_type TEXT NOT NULL,
    target INTEGER NOT NULL,
    intended INTEGER,
    intended_on_demand INTEGER NOT NULL,
    reason TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    provider TEXT NOT NULL,
    launch_template TEXT NOT NULL,
    position INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    boot_seconds REAL NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX fleets_there ON fleets (position) WHERE state <> 'deleted';
CREATE TABLE launch_templates (
    template_key TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    name TEXT NOT NULL,
    token TEXT NOT NULL,
    payload TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    provider TEXT NOT NULL,
    code TEXT NOT NULL,
    position INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    boot_seconds REAL NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE orphan_facts (
    machine_id TEXT PRIMARY KEY,
    provider TEXT NOT NULL,
    instance_type TEXT NOT NULL,
    price_type TEXT NOT NULL,
    name TEXT NOT NULL,
    private_ip_address TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE brake (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    scope TEXT NOT NULL,
    reason TEXT NOT NULL,
    since TEXT NOT NULL
);
CREATE INDEX launch_templates_there ON launch_templates (position)
    WHERE state IN ('open', 'created', 'missed', 'deleting');
""",
    3: """
ALTER TABLE cloud_states ADD COLUMN wall REAL NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN moved_to TEXT NOT NULL DEFAULT '';
""",
    # No question takes the indexes: what is open or alive has some that hold nothing else.
    4: """
CREATE TABLE projection_versions (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO projection_versions VALUES
    ('templates', 1), ('requests', 1), ('launches', 1), ('brake', 1), ('machines', 1);
DROP INDEX requests_by_status;
DROP INDEX requests_by_creation;
DROP INDEX requests_unseen;
DROP INDEX machines_by_status;
""",
    # Pages of the server's listings, the newest first. A row's position never changes, and a new
    # one's is the greatest, so that each costs one entry at the right edge.
    5: """
CREATE INDEX requests_by_position ON requests (position, request_id);
CREATE INDEX machines_by_position ON machines (position, machine_id);
""",
}

TABLES = (
    "events", "store", "commands", "tracking", "bodies", "projections", "projection_versions",
    "requests", "machines", "returned_machines", "templates", "template_revisions", "batches",
    "terminations", "fleets", "launch_templates", "brake",
)  # fmt: skip
"""The log and the read models."""

NOTEBOOK_TABLES = (
    "leases",
    "sweeps",
    "cloud_states",
    "orphans",
    "orphan_facts",
    "batch_sweeps",
    "calling",
    "unseen",
)
