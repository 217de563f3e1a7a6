"""The settings a site gets from its files and environment, and what it is told if it cannot."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from infrastructure.compiled import FLAGS_VARIABLE
from infrastructure.configuration import (
    ConfigurationProblem,
    read_document,
    read_settings,
    strip_comments,
    without_secrets,
)
from infrastructure.configuration_keys import environment_name
from infrastructure.settings import Settings
from infrastructure.settings.aws import Aws
from infrastructure.settings.provider import Account, Caps

FIXTURE = Path(__file__).parent.parent / "fixtures" / "ibm" / "awsprov_config.json"
REGION = {"AWS_REGION": "eu-west-1"}
"""An environment without which every reading warns of the missing region."""

# key, default, another value as JSON, what Settings then holds
KEYS: list[tuple[str, Any, Any, Any]] = [
    ("storage.url", None, "sqlite:/var/ledger.db", "sqlite:/var/ledger.db"),
    ("storage.strategy", "sqlite", "json", "json"),
    ("storage.group", None, "auditors", "auditors"),
    ("storage.sql_strategy.url", None, "postgresql://hf@db/ledger", "postgresql://hf@db/ledger"),
    ("storage.sql_strategy.pool_size", 5, 20, 20),
    ("storage.sql_strategy.max_overflow", 10, 0, 0),
    ("storage.sql_strategy.pool_timeout", 10, 3, 3),
    ("storage.sql_strategy.pool_recycle", 1800, 600, 600),
    ("storage.sql_strategy.enable_query_cache", True, False, False),
    ("storage.sql_strategy.query_cache_size", 500, 2000, 2000),
    ("storage.dynamodb_strategy.table_prefix", "hostledger", "grid-1", "grid-1"),
    ("storage.dynamodb_strategy.region", None, "eu-west-1", "eu-west-1"),
    ("storage.dynamodb_strategy.endpoint_url", None, "http://[::1]:8000", "http://[::1]:8000"),
    ("storage.dynamodb_strategy.billing_mode", "PAY_PER_REQUEST", "PROVISIONED", "PROVISIONED"),
    ("storage.dynamodb_strategy.auto_scaling.enabled", False, True, True),
    ("storage.dynamodb_strategy.auto_scaling.target_utilization", 70, 50, 50),
    ("storage.dynamodb_strategy.auto_scaling.min_read_capacity", 5, 1, 1),
    ("storage.dynamodb_strategy.auto_scaling.max_read_capacity", 1000, 100, 100),
    ("storage.dynamodb_strategy.auto_scaling.min_write_capacity", 5, 1, 1),
    ("storage.dynamodb_strategy.auto_scaling.max_write_capacity", 1000, 100, 100),
    ("storage.json_strategy.base_path", None, "/var/ledger", "/var/ledger"),
    ("storage.json_strategy.storage_type", "single_file", "split_files", "split_files"),
    ("storage.json_strategy.enable_compression", False, True, True),
    ("storage.json_strategy.cache_size", 500, 2000, 2000),
    ("storage.json_strategy.write_buffer_size", 65536, 128000, 128000),
    ("storage.json_strategy.sync_writes", True, False, False),
    ("storage.sqlite_strategy.path", None, "/var/ledger.db", "/var/ledger.db"),
    ("worker.mode", "auto", "external", "external"),
    ("worker.idle_timeout", 300, 45, 45),
    ("worker.lease_time", 60, 75, 75),
    ("worker.sweep_max_age", 90, 120, 120),
    ("worker.turn_budget", 20, 12.5, 12.5),
    ("provider.fulfilment_deadline", 300, 600, 600),
    ("provider.selection", "first_available", "least_cost", "least_cost"),
    ("provider.limits.machines", None, 5000, 5000),
    ("provider.limits.spend_per_hour", None, 12.5, 12.5),
    ("provider.limits.templates", {}, {"Big": {"machines": 7}}, {"Big": Caps(machines=7)}),
    (
        "provider.accounts",
        {},
        {"home": {"region": "eu-west-1"}, "away": {"region": "eu-west-1", "profile": "away"}},
        {
            "home": Account(region="eu-west-1"),
            "away": Account(region="eu-west-1", profile="away"),
        },
    ),
    ("provider.aws.region", None, "us-gov-west-1", "us-gov-west-1"),
    ("provider.aws.endpoint_url", None, "http://10.1.2.3:5000", "http://10.1.2.3:5000"),
    ("provider.aws.credential_file", None, "/etc/aws/credentials", "/etc/aws/credentials"),
    ("provider.aws.profile", "default", "grid", "grid"),
    ("provider.aws.credential_script", None, "/opt/sts.sh --role a", "/opt/sts.sh --role a"),
    ("provider.aws.credential_renew_margin", 300, 60, 60),
    (
        "provider.aws.assume_role",
        None,
        "arn:aws:iam::123456789012:role/buyer",
        "arn:aws:iam::123456789012:role/buyer",
    ),
    ("provider.aws.external_id", None, "grid-7", "grid-7"),
    (
        "provider.aws.interruption_queue",
        None,
        "https://sqs.us-east-1.amazonaws.com/123456789012/notices",
        "https://sqs.us-east-1.amazonaws.com/123456789012/notices",
    ),
    ("provider.aws.proxy", None, "http://proxy.example:3128", "http://proxy.example:3128"),
    ("provider.aws.max_inflight", 4, 2, 2),
    ("provider.aws.token_safe_age", 3600, 1800, 1800),
    ("provider.aws.settle_gap", 300, 400, 400),
    ("provider.aws.sweep_interval", 60, 30, 30),
    ("provider.aws.launch_chunk", 100, 250, 250),
    ("provider.aws.fleet_chunk", 500, 250, 250),
    ("provider.aws.pending_timeout", 180, 200, 200),
    ("provider.aws.creation_timeout", 600, 900, 900),
    ("provider.aws.tag_instance_id", False, True, True),
    ("provider.aws.spot_terminate_on_reclaim", False, True, True),
    ("provider.aws.batch_sizes.describe_instances", 200, 100, 100),
    ("provider.aws.batch_sizes.terminate_instances", 200, 50, 50),
    ("provider.aws.batch_sizes.create_tags", 200, 50, 50),
    ("provider.aws.timeouts.connect_timeout", 3, 2.5, 2.5),
    ("provider.aws.timeouts.read_timeout", 30, 40, 40),
    ("provider.aws.config.max_pool_connections", 10, 100, 100),
    ("provider.aws.config.retries.max_attempts", 1, 3, 3),
    ("provider.aws.config.retries.mode", "standard", "adaptive", "adaptive"),
    ("provider.aws.launch_retries", 0, 10, 10),
    ("provider.aws.describe_retries", 2, 0, 0),
    ("provider.aws.describe_retry_interval", 0.5, 0, 0),
    ("provider.aws.buckets.RunInstances", (4, 1.6), [2, 1], (2, 1)),
    ("provider.aws.buckets.TerminateInstances", (80, 4), [50, 2.5], (50, 2.5)),
    ("provider.aws.buckets.DescribeInstances", (40, 8), [20, 4], (20, 4)),
    ("provider.aws.buckets.CreateTags", (80, 8), [10, 1], (10, 1)),
    ("provider.aws.buckets.NonMutating", (80, 16), [20, 4], (20, 4)),
    ("provider.aws.buckets.Mutating", (40, 4), [10, 1], (10, 1)),
    ("provider.aws.buckets.RunInstances:instances", (800, 1.6), [500, 1], (500, 1)),
    ("provider.aws.buckets.TerminateInstances:instances", (800, 16), [500, 1], (500, 1)),
    ("audit.checkpoint_to", None, "s3://proofs/site", "s3://proofs/site"),
    ("audit.checkpoint_key", None, "/site/key", "/site/key"),
    ("logging.level", "INFO", "DEBUG", "DEBUG"),
    ("logging.max_file_size", 10, 50, 50),
    ("logging.max_rotate", 5, 0, 0),
    ("monitoring.performance.enabled", True, False, False),
    ("monitoring.performance.collection_interval", 30, 10, 10),
    ("monitoring.performance.retention_period", "7d", "36h", "36h"),
    ("monitoring.performance.alerts.response_time_threshold", None, 5.0, 5.0),
    ("monitoring.performance.alerts.error_rate_threshold", None, 0.05, 0.05),
    ("monitoring.performance.alerts.memory_usage_threshold", None, 0.8, 0.8),
    (
        "monitoring.performance.alerts.webhook_url",
        None,
        "https://alerts.example.org/hook?key=1",
        "https://alerts.example.org/hook?key=1",
    ),
    (
        "monitoring.performance.alerts.sns_topic_arn",
        None,
        "arn:aws:sns:us-west-2:123456789012:alerts",
        "arn:aws:sns:us-west-2:123456789012:alerts",
    ),
    ("monitoring.performance.alerts.command", None, "/usr/bin/page-me", "/usr/bin/page-me"),
    ("retention.days", 0, 400, 400),
    ("retention.legal_hold", [], ["req-0f8f*"], ["req-0f8f*"]),
    ("reports.prices", None, "/etc/prices.json", "/etc/prices.json"),
    ("server.host", "127.0.0.1", "0.0.0.0", "0.0.0.0"),
    ("server.port", 8765, 0, 0),
    ("server.socket", None, "/run/hostledger.sock", "/run/hostledger.sock"),
    ("server.requests_per_second", 2000, 50, 50),
    ("server.max_body", 65536, 1000, 1000),
    ("server.request_timeout", 10, 5, 5),
    ("server.drain_timeout", 30, 10, 10),
    ("server.max_streams", 200, 20, 20),
    (
        "server.oidc.jwks_url",
        None,
        "https://login.example.org/keys",
        "https://login.example.org/keys",
    ),
    ("server.oidc.role_claim", "roles", "groups", "groups"),
    ("server.oidc.audience", None, "hostledger", "hostledger"),
    (
        "server.oidc.roles",
        {"viewer": "viewer", "operator": "operator", "admin": "admin"},
        {"ops": "operator"},
        {"ops": "operator"},
    ),
    ("performance.lazy_loading.enabled", True, False, False),
    ("performance.lazy_loading.cache_instances", True, False, False),
    ("performance.lazy_loading.discovery_mode", "lazy", "eager", "eager"),
    ("performance.lazy_loading.connection_mode", "lazy", "eager", "eager"),
    (
        "performance.lazy_loading.preload_critical",
        [],
        ["LoggingPort", "ConfigurationPort", "store"],
        ["LoggingPort", "ConfigurationPort", "store"],
    ),
    ("performance.lazy_loading.debug_timing", False, True, True),
    ("performance.lazy_loading.max_concurrent_loads", 5, 2, 2),
    ("performance.memory.max_cache_size", 100_000_000, "2MB", 2_000_000),
    ("performance.memory.gc_threshold", None, 1000, 1000),
    ("performance.memory.object_pool_size", 0, 500, 500),
    ("performance.cpu.worker_processes", 1, 4, 4),
    ("performance.cpu.thread_pool_size", 1, 8, 8),
    ("processing.worker_threads", 1, 4, 4),
    ("performance.cpu.cpu_affinity", None, [0, 1], [0, 1]),
    ("processing.max_concurrent_requests", 500, 10, 10),
    ("processing.request_queue_size", 1000, 100, 100),
    ("processing.batch_processing.enabled", True, False, False),
    ("processing.batch_processing.batch_size", 100, 20, 20),
    ("processing.batch_processing.batch_timeout", 0.5, 5, 5),
]

# key, bad value as JSON, words of the message
NOT_ALONE = {
    "server.tls_certificate",
    "server.tls_key",
    "server.oidc.issuer",
    "performance.cpu.async_operations",
}
"""Keys that change, or need, another one: each has a test of its own."""

BAD_VALUES: list[tuple[str, Any, str]] = [
    ("storage.strategy", "papyrus", "'sqlite', 'sql', 'dynamodb' or 'json', not \"papyrus\""),
    ("storage.url", "papyrus:/scroll", "json:/DIR"),
    ("storage.group", [], "valid string"),
    ("storage.sqlite_strategy.path", "ledger.db", "an absolute path is needed"),
    ("storage.sql_strategy.url", "mysql://hf@db/ledger", "postgresql://USER"),
    ("storage.sql_strategy.pool_size", 0, "greater than or equal to 1"),
    ("storage.sql_strategy.max_overflow", -1, "greater than or equal to 0"),
    ("storage.sql_strategy.pool_timeout", 0, "greater than 0"),
    ("storage.sql_strategy.pool_recycle", 0, "greater than 0"),
    ("storage.sql_strategy.enable_query_cache", "perhaps", "valid boolean"),
    ("storage.sql_strategy.query_cache_size", 0, "greater than or equal to 1"),
    ("storage.dynamodb_strategy.table_prefix", "a b", "should match pattern"),
    ("storage.dynamodb_strategy.region", "us-west-2a", "its region is us-west-2"),
    ("storage.dynamodb_strategy.endpoint_url", "http://", "a URL such as"),
    ("storage.dynamodb_strategy.billing_mode", "FREE", "'PAY_PER_REQUEST' or 'PROVISIONED'"),
    ("storage.dynamodb_strategy.auto_scaling.enabled", "perhaps", "valid boolean"),
    ("storage.dynamodb_strategy.auto_scaling.target_utilization", 95, "less than or equal to 90"),
    ("storage.dynamodb_strategy.auto_scaling.min_read_capacity", 0, "greater than or equal to 1"),
    ("storage.dynamodb_strategy.auto_scaling.max_read_capacity", 0, "greater than or equal to 1"),
    ("storage.dynamodb_strategy.auto_scaling.min_write_capacity", 0, "greater than or equal to 1"),
    ("storage.dynamodb_strategy.auto_scaling.max_write_capacity", 0, "greater than or equal to 1"),
    ("storage.json_strategy.base_path", "ledger", "an absolute path is needed"),
    ("storage.json_strategy.storage_type", "papyrus", "'single_file' or 'split_files'"),
    ("storage.json_strategy.enable_compression", "perhaps", "valid boolean"),
    ("storage.json_strategy.cache_size", 0, "greater than or equal to 1"),
    ("storage.json_strategy.write_buffer_size", 0, "greater than or equal to 1"),
    ("storage.json_strategy.sync_writes", "perhaps", "valid boolean"),
    ("worker.mode", "sometimes", "'auto', 'external' or 'inline'"),
    ("worker.idle_timeout", 0, "greater than 0"),
    ("worker.idle_timeout", True, "a number is needed"),
    ("worker.lease_time", "soon", "valid number"),
    ("worker.sweep_max_age", -1, "greater than 0"),
    ("worker.turn_budget", None, "valid number"),
    ("provider.fulfilment_deadline", 10**12, "less than or equal to 31536000"),
    ("provider.selection", "cheapest", "'round_robin' or 'least_cost'"),
    ("provider.limits.machines", -1, "greater than or equal to 0"),
    ("provider.limits.spend_per_hour", True, "a number is needed"),
    ("provider.limits.spend_per_hour", "much", "valid number"),
    ("provider.limits.templates", [], "valid dictionary"),
    ("provider.accounts", "home", "a JSON object is needed"),
    ("provider.accounts", 7, "valid dictionary"),
    ("provider.aws.region", "us-west-2a", "its region is us-west-2"),
    ("provider.aws.region", "Oregon!", "a region code such as us-west-2"),
    ("provider.aws.endpoint_url", "ftp://ec2", "a URL such as https://"),
    ("provider.aws.endpoint_url", "https://ec2:port", "a URL such as https://"),
    ("provider.aws.endpoint_url", "https://[::1", "a URL such as https://"),
    ("provider.aws.credential_file", "credentials", "an absolute path is needed"),
    ("provider.aws.credential_script", ["/opt/sts.sh"], "valid string"),
    ("provider.aws.credential_renew_margin", -1, "greater than or equal to 0"),
    ("provider.aws.external_id", "7", "2 to 1224 letters"),
    ("provider.aws.assume_role", "buyer", "a role's ARN such as arn:aws:iam::"),
    ("provider.aws.interruption_queue", "sqs://notices", "a URL such as https://"),
    ("provider.aws.profile", "", "at least 1 character"),
    ("provider.aws.proxy", "proxy.example:3128", "http://host:port"),
    ("provider.aws.proxy", "http://proxy.example", "http://host:port"),
    ("provider.aws.proxy", "http://proxy.example:99999", "http://host:port"),
    ("provider.aws.proxy", "http://proxy.example:3128/x", "http://host:port"),
    ("provider.aws.max_inflight", 0, "greater than or equal to 1"),
    ("provider.aws.max_inflight", 1.5, "valid integer"),
    ("provider.aws.token_safe_age", -1, "greater than or equal to 0"),
    ("provider.aws.settle_gap", -1, "greater than or equal to 0"),
    ("provider.aws.sweep_interval", 0, "greater than 0"),
    ("provider.aws.launch_chunk", 1001, "less than or equal to 1000"),
    ("provider.aws.fleet_chunk", 0, "greater than or equal to 1"),
    ("provider.aws.pending_timeout", 0, "greater than 0"),
    ("provider.aws.creation_timeout", 0, "greater than 0"),
    ("provider.aws.tag_instance_id", "perhaps", "valid boolean"),
    ("provider.aws.spot_terminate_on_reclaim", 7, "valid boolean"),
    ("provider.aws.batch_sizes.describe_instances", 0, "greater than or equal to 1"),
    ("provider.aws.batch_sizes.terminate_instances", 1001, "less than or equal to 1000"),
    ("provider.aws.batch_sizes.create_tags", 0, "greater than or equal to 1"),
    ("provider.aws.timeouts.connect_timeout", 0, "greater than 0"),
    ("provider.aws.timeouts.read_timeout", [30], "valid number"),
    ("provider.aws.config.max_pool_connections", 0, "greater than or equal to 1"),
    ("provider.aws.config.retries.max_attempts", 0, "greater than or equal to 1"),
    ("provider.aws.config.retries.mode", "often", "'standard' or 'adaptive'"),
    ("provider.aws.launch_retries", 11, "less than or equal to 10"),
    ("provider.aws.describe_retries", -1, "greater than or equal to 0"),
    ("provider.aws.describe_retry_interval", 3601, "less than or equal to 3600"),
    ("provider.aws.buckets.RunInstances", [4], "[size, refill per second] is needed"),
    ("provider.aws.buckets.RunInstances", "4/1.6", "[size, refill per second] is needed"),
    ("provider.aws.buckets.TerminateInstances", [0, 4], "greater than or equal to 1"),
    ("provider.aws.buckets.DescribeInstances", [40, 0], "greater than 0"),
    ("provider.aws.buckets.CreateTags", [True, 1], "a number is needed"),
    ("provider.aws.buckets.NonMutating", [0, 1], "greater than or equal to 1"),
    ("provider.aws.buckets.Mutating", [1, 0], "greater than 0"),
    ("provider.aws.buckets.TerminateInstances:instances", 9, "[size, refill per second] is needed"),
    ("provider.aws.buckets.RunInstances:instances", 800, "[size, refill per second] is needed"),
    ("audit.checkpoint_to", "proofs", "an absolute path or s3://BUCKET/PREFIX is needed"),
    ("audit.checkpoint_key", "key", "an absolute path is needed"),
    ("logging.level", "LOUD", "'ERROR' or 'FATAL'"),
    ("logging.level", 3, "'ERROR' or 'FATAL'"),
    ("logging.max_file_size", 0, "greater than or equal to 1"),
    ("logging.max_rotate", -1, "greater than or equal to 0"),
    ("monitoring.performance.enabled", "perhaps", "bool"),
    ("monitoring.performance.collection_interval", 0.5, "greater than or equal to 1"),
    ("monitoring.performance.retention_period", "7 days", "such as 7d"),
    ("monitoring.performance.alerts.response_time_threshold", 0, "greater than 0"),
    ("monitoring.performance.alerts.error_rate_threshold", 5, "less than or equal to 1"),
    ("monitoring.performance.alerts.memory_usage_threshold", -0.1, "greater than or equal to 0"),
    ("monitoring.performance.alerts.webhook_url", "alerts.example.org", "a URL such as"),
    ("monitoring.performance.alerts.sns_topic_arn", "alerts", "a topic's ARN"),
    ("monitoring.performance.alerts.command", "page-me", "an absolute path is needed"),
    ("retention.days", -1, "greater than or equal to 0"),
    ("retention.legal_hold", "req-0f8f*", "a JSON list is needed"),
    ("reports.prices", "prices.json", "an absolute path is needed"),
    ("server.host", "", "at least 1 character"),
    ("server.port", 65536, "less than or equal to 65535"),
    ("server.socket", "hostledger.sock", "an absolute path is needed"),
    ("server.tls_certificate", "cert.pem", "an absolute path is needed"),
    ("server.tls_key", "key.pem", "an absolute path is needed"),
    ("server.requests_per_second", 0, "greater than 0"),
    ("server.max_body", 0, "greater than or equal to 1"),
    ("server.request_timeout", 0, "greater than 0"),
    ("server.drain_timeout", -1, "greater than 0"),
    ("server.max_streams", 0, "greater than or equal to 1"),
    ("server.oidc.issuer", "http://login.example.org", "an https URL is needed"),
    ("server.oidc.jwks_url", "login.example.org/keys", "an https URL is needed"),
    ("server.oidc.role_claim", "", "at least 1 character"),
    ("server.oidc.roles", "ops", "a JSON object is needed"),
    ("performance.lazy_loading.enabled", "perhaps", "valid boolean"),
    ("performance.lazy_loading.cache_instances", "perhaps", "valid boolean"),
    ("performance.lazy_loading.discovery_mode", "keen", "'lazy' or 'eager'"),
    ("performance.lazy_loading.connection_mode", "keen", "'lazy' or 'eager'"),
    ("performance.lazy_loading.preload_critical", ["StoragePort"], "'store'"),
    ("performance.lazy_loading.preload_critical", "store", "a JSON list is needed"),
    ("performance.lazy_loading.debug_timing", "perhaps", "valid boolean"),
    ("performance.lazy_loading.max_concurrent_loads", 65, "less than or equal to 64"),
    ("performance.memory.max_cache_size", "100 boxes", "a size such as 100MB"),
    ("performance.memory.gc_threshold", 0, "greater than or equal to 1"),
    ("performance.memory.object_pool_size", -1, "greater than or equal to 0"),
    ("performance.cpu.worker_processes", 65, "less than or equal to 64"),
    ("performance.cpu.thread_pool_size", 0, "greater than or equal to 1"),
    ("processing.worker_threads", 65, "less than or equal to 64"),
    ("performance.cpu.async_operations", "perhaps", "valid boolean"),
    ("performance.cpu.cpu_affinity", [-1], "greater than or equal to 0"),
    ("processing.max_concurrent_requests", 0, "greater than or equal to 1"),
    ("processing.request_queue_size", -1, "greater than or equal to 0"),
    ("processing.batch_processing.enabled", "perhaps", "valid boolean"),
    ("processing.batch_processing.batch_size", 0, "greater than or equal to 1"),
    ("processing.batch_processing.batch_timeout", 61, "less than or equal to 60"),
]

# IBM's key, value in the file, our key, what Settings then holds
IBM_KEYS: list[tuple[str, Any, str, Any]] = [
    ("AWS_CREDENTIAL_FILE", "/opt/aws/credentials", "provider.aws.credential_file", None),
    ("AWS_CREDENTIAL_SCRIPT", "/opt/sts.sh", "provider.aws.credential_script", None),
    ("AWS_CREDENTIAL_RENEW_MARGIN", "30", "provider.aws.credential_renew_margin", 30),
    ("AWS_REGION", "ap-northeast-1", "provider.aws.region", None),
    ("AWS_ENDPOINT_URL", "https://vpce-1.example", "provider.aws.endpoint_url", None),
    ("AWS_ENDPOINT_URL", "vpce-1.example", "provider.aws.endpoint_url", "https://vpce-1.example"),
    ("AWS_ENDPOINT_URL", "10.0.0.9:5000", "provider.aws.endpoint_url", "https://10.0.0.9:5000"),
    ("AWS_CONNECTION_TIMEOUT_MS", "10000", "provider.aws.timeouts.connect_timeout", 10),
    ("AWS_CONNECTION_TIMEOUT_MS", 1, "provider.aws.timeouts.connect_timeout", 0.001),
    ("AWS_REQUEST_RETRY_ATTEMPTS", "3", "provider.aws.launch_retries", 3),
    ("AWS_REQUEST_RETRY_ATTEMPTS", 10, "provider.aws.launch_retries", 10),
    ("AWS_INSTANCE_PENDING_TIMEOUT_SEC", " 180 ", "provider.aws.pending_timeout", 180),
    ("AWS_INSTANCE_PENDING_TIMEOUT_SEC", 10000, "provider.aws.pending_timeout", 10000),
    ("AWS_DESCRIBE_REQUEST_RETRY_ATTEMPTS", "0", "provider.aws.describe_retries", 0),
    ("AWS_DESCRIBE_REQUEST_RETRY_ATTEMPTS", 10, "provider.aws.describe_retries", 10),
    ("AWS_DESCRIBE_REQUEST_INTERVAL", "250", "provider.aws.describe_retry_interval", 0.25),
    ("AWS_DESCRIBE_REQUEST_INTERVAL", 0, "provider.aws.describe_retry_interval", 0),
    ("INSTANCE_CREATION_TIMEOUT", "20", "provider.aws.creation_timeout", 1200),
    ("INSTANCE_CREATION_TIMEOUT", 1, "provider.aws.creation_timeout", 60),
    ("AWS_TAG_InstanceID", "true", "provider.aws.tag_instance_id", True),
    ("AWS_TAG_InstanceID", True, "provider.aws.tag_instance_id", True),
    ("AWS_TAG_InstanceID", "false", "provider.aws.tag_instance_id", False),
    ("AWS_SPOT_TERMINATE_ON_RECLAIM", "TRUE", "provider.aws.spot_terminate_on_reclaim", True),
    ("AWS_SPOT_TERMINATE_ON_RECLAIM", False, "provider.aws.spot_terminate_on_reclaim", False),
    ("LogLevel", "TRACE", "logging.level", None),
    ("LogLevel", "error", "logging.level", "ERROR"),
    ("LogLevel", "WARNING", "logging.level", "WARN"),
]

IBM_BAD_VALUES: list[tuple[str, Any, str]] = [
    ("ACCEPT_PROPAGATED_LOG_SETTING", "maybe", 'true or false is needed, not "maybe"'),
    ("AWS_CREDENTIAL_FILE", 7, "text is needed, not 7"),
    ("AWS_CREDENTIAL_FILE", "credentials", "an absolute path is needed"),
    ("AWS_REGION", "eu-west-1b", "its region is eu-west-1"),
    ("AWS_REGION", True, "text is needed, not true"),
    ("AWS_ENDPOINT_URL", "ftp://vpce", "a URL such as https://"),
    ("AWS_KEY_FILE", [], "text is needed"),
    ("AWS_PROXY_HOST", 1, "text is needed"),
    ("AWS_PROXY_PORT", "0", "a whole number from 1 to 65535 is needed"),
    ("AWS_PROXY_PORT", 65536, "a whole number from 1 to 65535 is needed"),
    ("AWS_CONNECTION_TIMEOUT_MS", "0", "from 1 to 2147483647"),
    ("AWS_CONNECTION_TIMEOUT_MS", 2**31, "from 1 to 2147483647"),
    ("AWS_REQUEST_RETRY_ATTEMPTS", 11, "from 0 to 10"),
    ("AWS_REQUEST_RETRY_ATTEMPTS", 1.5, "from 0 to 10"),
    ("AWS_REQUEST_RETRY_ATTEMPTS", True, "from 0 to 10"),
    ("AWS_INSTANCE_PENDING_TIMEOUT_SEC", 179, "from 180 to 10000"),
    ("AWS_INSTANCE_PENDING_TIMEOUT_SEC", "10001", "from 180 to 10000"),
    ("AWS_DESCRIBE_REQUEST_RETRY_ATTEMPTS", -1, "from 0 to 10"),
    ("AWS_DESCRIBE_REQUEST_INTERVAL", "10001", "from 0 to 10000"),
    ("AWS_DESCRIBE_REQUEST_INTERVAL", "half", "from 0 to 10000"),
    ("LogLevel", "LOUD", "one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL"),
    ("AWS_CREDENTIAL_RENEW_MARGIN", "soon", "a whole number"),
    ("AWS_SPOT_TERMINATE_ON_RECLAIM", "yes", "true or false is needed"),
    ("INSTANCE_CREATION_TIMEOUT", 0, "a whole number from 1"),
    ("AWS_TAG_InstanceID", 1, "true or false is needed"),
]

IBM_NAMES = [
    "ACCEPT_PROPAGATED_LOG_SETTING",
    "AWS_CREDENTIAL_FILE",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_KEY_FILE",
    "AWS_PROXY_HOST",
    "AWS_PROXY_PORT",
    "AWS_CONNECTION_TIMEOUT_MS",
    "AWS_REQUEST_RETRY_ATTEMPTS",
    "AWS_INSTANCE_PENDING_TIMEOUT_SEC",
    "AWS_DESCRIBE_REQUEST_RETRY_ATTEMPTS",
    "AWS_DESCRIBE_REQUEST_INTERVAL",
    "LogLevel",
    "AWS_CREDENTIAL_SCRIPT",
    "AWS_CREDENTIAL_RENEW_MARGIN",
    "AWS_SPOT_TERMINATE_ON_RECLAIM",
    "INSTANCE_CREATION_TIMEOUT",
    "AWS_TAG_InstanceID",
]


def value_of(settings: Settings, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = settings
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def nested(key: str, value: Any) -> dict[str, Any]:
    """`a.b` and 1 as `{"a": {"b": 1}}`."""
    for name in reversed(key.split(".")):
        value = {name: value}
    result: dict[str, Any] = value
    return result


def leaves(document: dict[str, Any], prefix: str = "") -> set[str]:
    """The dotted keys of a nested document; an object that is empty is one."""
    found = set()
    for name, value in document.items():
        inner = isinstance(value, dict) and value
        found |= leaves(value, f"{prefix}{name}.") if inner else {prefix + name}
    return found


def written(tmp_path: Path, content: Any, name: str = "hostledger.json") -> str:
    """The path of a new file with this text, or this as JSON."""
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return str(path)


def problem_of(
    own: str | None, ibm: str | None = None, environ: dict[str, str] | None = None
) -> ConfigurationProblem:
    """The problem that reading these ends in."""
    with pytest.raises(ConfigurationProblem) as caught:
        read_settings(own, ibm, environ or {})
    assert "\n" not in str(caught.value)
    return caught.value


# --- our keys -------------------------------------------------------------------------------


def test_the_tables_here_name_every_key() -> None:
    """No key is added without its default, another value and a bad one here."""
    every = {
        re.sub(r"^(server\.oidc\.roles)\..*", r"\1", key) for key in leaves(Settings().model_dump())
    }

    assert every == {key for key, *_ in KEYS} | NOT_ALONE
    assert every == {key for key, *_ in BAD_VALUES} | {"server.oidc.audience"}  # any text is one


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"server": {"tls_key": "/etc/key.pem"}}, "go together"),
        ({"server": {"oidc": {"issuer": "https://login.example.org"}}}, "without server.oidc.audi"),
        (
            {"worker": {"mode": "auto"}, "performance": {"cpu": {"async_operations": False}}},
            "worker.mode is auto",
        ),
    ],
)
def test_keys_that_do_not_go_together(tmp_path: Path, document: Any, words: str) -> None:
    assert words in problem_of(written(tmp_path, document)).problem


def test_keys_that_go_together(tmp_path: Path) -> None:
    tls = {"tls_certificate": "/etc/cert.pem", "tls_key": "/etc/key.pem"}
    oidc = {"issuer": "https://login.example.org", "audience": "hostledger"}
    document = {
        "server": {**tls, "oidc": oidc},
        "performance": {"cpu": {"async_operations": False}},
    }
    settings, _ = read_settings(written(tmp_path, document), None, REGION)

    assert (settings.server.tls_certificate, settings.server.tls_key) == tuple(tls.values())
    assert settings.server.oidc.issuer == oidc["issuer"]
    assert settings.worker.mode == "inline"


@pytest.mark.parametrize(("key", "default"), [row[:2] for row in KEYS])
def test_defaults(key: str, default: Any) -> None:
    """With no file and no environment the defaults hold."""
    settings, _ = read_settings(None, None, {})

    assert default == value_of(settings, key)


@pytest.mark.parametrize(("key", "value", "expected"), [(k, v, e) for k, _, v, e in KEYS])
def test_own_file(tmp_path: Path, key: str, value: Any, expected: Any) -> None:
    """Each key of our file arrives, and only that one changes."""
    given_value = nested(key, value)
    settings, _ = read_settings(written(tmp_path, given_value), None, REGION)

    assert expected == value_of(settings, key)
    others = {other for other, *_ in KEYS} - {key, "provider.aws.region"}
    if key == "storage.url":  # it says the place too
        others = {other for other in others if not other.startswith("storage.")}
    assert all(value_of(Settings(), other) == value_of(settings, other) for other in others)


@pytest.mark.parametrize(("key", "value", "expected"), [(k, v, e) for k, _, v, e in KEYS])
def test_environment(key: str, value: Any, expected: Any) -> None:
    """Each key can be set by environment, its sections joined by two underscores."""
    text = value if isinstance(value, str) else json.dumps(value)
    settings, _ = read_settings(None, None, {environment_name(key): text})

    assert expected == value_of(settings, key)


@pytest.mark.parametrize(("key", "value", "expected"), [(k, v, e) for k, _, v, e in KEYS])
def test_flags(key: str, value: Any, expected: Any) -> None:
    """Each key can be set by a flag, which is carried in one variable."""
    text = value if isinstance(value, str) else json.dumps(value)
    settings, _ = read_settings(None, None, {FLAGS_VARIABLE: json.dumps({key: text})})

    assert expected == value_of(settings, key)


@pytest.mark.parametrize(
    ("key", "value", "words"), [row for row in BAD_VALUES if isinstance(row[1], str)]
)
def test_bad_values_of_flags(key: str, value: str, words: str) -> None:
    """What is said of a flag is said by its own name."""
    problem = problem_of(None, None, {FLAGS_VARIABLE: json.dumps({key: value})})

    assert (problem.path, problem.key) == ("--set", key)
    assert words in problem.problem


@pytest.mark.parametrize(("key", "near"), [("wroker.mode", "worker.mode"), ("worker", "worker.m")])
def test_unknown_flags(key: str, near: str) -> None:
    problem = problem_of(None, None, {FLAGS_VARIABLE: json.dumps({key: "1"})})

    assert (problem.path, problem.key) == ("--set", key)
    assert f"is no key; the nearest is {near}" in problem.problem


@pytest.mark.parametrize("text", ["worker.mode=auto", "[]", "7"])
def test_the_variable_of_flags_is_ours(text: str) -> None:
    """What else stands there is refused by the variable's name."""
    assert problem_of(None, None, {FLAGS_VARIABLE: text}).key == FLAGS_VARIABLE


def test_editors_are_told_the_schema(tmp_path: Path) -> None:
    """`$schema` is what editors look for, at the top and nowhere else."""
    schema = {"$schema": "https://example.org/configuration.schema.json"}

    assert read_settings(written(tmp_path, schema), None, {})[0] == Settings()
    assert problem_of(written(tmp_path, {"worker": schema})).key == "worker.$schema"


@pytest.mark.parametrize(
    ("name", "key", "value", "expected"),
    [
        ("HOSTLEDGER_WORKER__MODE", "worker.mode", "external", "external"),
        ("HOSTLEDGER_PROVIDER__AWS__MAX_INFLIGHT", "provider.aws.max_inflight", "2", 2),
        ("HOSTLEDGER_STORAGE__SQLITE_STRATEGY__PATH", "storage.sqlite_strategy.path", "/x", "/x"),
        (
            "HOSTLEDGER_PROVIDER__AWS__BUCKETS__RUNINSTANCES_INSTANCES",
            "provider.aws.buckets.RunInstances:instances",
            "[900, 1.8]",
            (900, 1.8),
        ),
    ],
)
def test_environment_names(name: str, key: str, value: str, expected: Any) -> None:
    """The names that documentation shows are the names that work."""
    settings, _ = read_settings(None, None, {name: value})

    assert name == environment_name(key)
    assert expected == value_of(settings, key)


def test_names_without_two_underscores_are_no_keys() -> None:
    """HOSTLEDGER_CONFIG and the like are somebody else's."""
    names = {"HOSTLEDGER_CONFIG": "/x.json", "HOSTLEDGER_": "1", "HOSTLEDGERS__X": "1"}

    assert Settings() == read_settings(None, None, names)[0]


@pytest.mark.parametrize(("key", "value", "words"), BAD_VALUES)
def test_bad_values_in_own_file(tmp_path: Path, key: str, value: Any, words: str) -> None:
    """A bad value is refused with its file, its key, what is wrong and the next step."""
    path = written(tmp_path, nested(key, value))
    problem = problem_of(path)

    assert (path, key) == (problem.path, problem.key)
    assert words in problem.problem
    assert str(problem).startswith(f"{path}: {key}: ")
    assert "correct it" in problem.next_step


@pytest.mark.parametrize(
    ("key", "value", "words"), [row for row in BAD_VALUES if isinstance(row[1], str | int)]
)
def test_bad_values_in_the_environment(key: str, value: Any, words: str) -> None:
    """A bad value in the environment is refused by the variable's name."""
    if isinstance(value, bool) and words == "a number is needed":
        words = "valid number"  # "true" is text there
    text = value if isinstance(value, str) else json.dumps(value)
    if key == "logging.level" or not isinstance(value, str):
        words = words.split(",", maxsplit=1)[0]
    problem = problem_of(None, None, {environment_name(key): text})

    assert ("environment", environment_name(key)) == (problem.path, problem.key)
    assert words in problem.problem


def test_the_next_step_names_the_default(tmp_path: Path) -> None:
    """Whoever is stuck can go back to the default, and is told which."""
    problem = problem_of(written(tmp_path, nested("worker.mode", "sometimes")))

    assert problem.next_step == 'correct it, or take it out for the default, "auto"'


@pytest.mark.parametrize(
    ("document", "key", "nearest"),
    [
        ({"worker": {"mod": "auto"}}, "worker.mod", "worker.mode"),
        ({"storag": {}}, "storag", "storage"),
        (nested("provider.aws.maxInflight", 1), "provider.aws.maxInflight", "max_inflight"),
        (nested("provider.aws.buckets.RunInstance", [1, 1]), "RunInstance", "RunInstances"),
        ({"max_inflight": 1}, "max_inflight", "provider.aws.max_inflight"),
        ({"zzz": 1}, "zzz", "the nearest is "),
    ],
)
def test_unknown_keys(tmp_path: Path, document: Any, key: str, nearest: str) -> None:
    """A key that is none is refused with the nearest that is one."""
    problem = problem_of(written(tmp_path, document))

    assert problem.key.endswith(key)
    assert "is no key" in problem.problem
    assert nearest in problem.problem


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("HOSTLEDGER_WORKER__MOOD", "HOSTLEDGER_WORKER__MODE"),
        ("HOSTLEDGER__WORKER__MODE", "HOSTLEDGER_WORKER__MODE"),
        ("HOSTLEDGER_WORKER_MODE", "HOSTLEDGER_WORKER__MODE"),
        ("HOSTLEDGER_PROVIDER_AWS_MAX_INFLIGHT", "HOSTLEDGER_PROVIDER__AWS__MAX_INFLIGHT"),
        ("HOSTLEDGER_PROVIDER__MAX_INFLIGHT", "HOSTLEDGER_PROVIDER__AWS__MAX_INFLIGHT"),
    ],
)
def test_unknown_variables(name: str, nearest: str) -> None:
    """A variable that sets nothing is refused by its name."""
    problem = problem_of(None, None, {name: "1"})

    assert ("environment", name) == (problem.path, problem.key)
    assert nearest in problem.problem


@pytest.mark.parametrize("value", [1, "x", None, []])
def test_sections_are_objects(tmp_path: Path, value: Any) -> None:
    """A section that is no object is refused by its name."""
    problem = problem_of(written(tmp_path, nested("provider.aws.timeouts", value)))

    assert problem.key == "provider.aws.timeouts"
    assert "is a section" in problem.problem


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    """Of two values in our own file none silently wins."""
    path = written(tmp_path, '{"worker": {"mode": "auto", "mode": "inline"}}')

    assert "mode: is given twice" in str(problem_of(path))


def test_one_bucket_leaves_the_others(tmp_path: Path) -> None:
    """A bucket is set by itself, in a file or in the environment."""
    own = written(tmp_path, nested("provider.aws.buckets.CreateTags", [8, 2]))
    settings, _ = read_settings(
        own, None, {environment_name("provider.aws.buckets.RunInstances"): "[3, 1]"}
    )
    default = Settings().provider.aws.buckets

    assert {
        **default,
        "CreateTags": (8, 2),
        "RunInstances": (3, 1),
    } == settings.provider.aws.buckets


@pytest.mark.parametrize("path", ["storage.sqlite_strategy.path", "provider.aws.proxy"])
def test_an_empty_variable_means_none(tmp_path: Path, path: str) -> None:
    """What a file sets can be taken back to None by an empty variable."""
    value = {key: value for key, _, value, _ in KEYS}[path]
    settings, _ = read_settings(
        written(tmp_path, nested(path, value)), None, {environment_name(path): ""}
    )

    assert value_of(settings, path) is None


def test_a_proxy_password_stays_out_of_messages() -> None:
    """A message goes to logs and screens; the password of a proxy does not."""
    name = environment_name("provider.aws.proxy")
    problem = problem_of(None, None, {name: "http://grid:s3cret@proxy.example"})

    assert "s3cret" not in str(problem)
    assert "***@proxy.example" in problem.problem


@pytest.mark.parametrize("url", ["postgresql:hf:s3cret@db", "dynamodb://eu-west-1/a%20table"])
def test_a_place_that_is_none_is_refused_by_the_key_that_says_it(url: str) -> None:
    """Also where what is wrong is a key that the place stands for."""
    problem = problem_of(None, None, {environment_name("storage.url"): url})

    assert problem.key == environment_name("storage.url")
    assert "s3cret" not in str(problem)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://grid:s3cret@proxy.example:1", "http://***@proxy.example:1"),
        ("http://grid:s3c@r/et@proxy.example", "http://***@proxy.example"),
        ("postgresql://db/x?user=hf&password=s3c@ret", "postgresql://db/x?user=hf&password=***"),
        (
            "https://ec2.example/a?X-Amz-Signature=s3cret&b=1",
            "https://ec2.example/a?X-Amz-Signature=***&b=1",
        ),
        ("/opt/sts.sh --role a --api-key s3cret", "/opt/sts.sh --role a --api-key ***"),
        ("/opt/sts.sh --password 'open se same' -v", "/opt/sts.sh --password *** -v"),
        ("/opt/token.sh --role=a", "/opt/token.sh --role=a"),
        ("grid:s3cret@proxy.example:1", "***@proxy.example:1"),
        ("sqlite:/var/a@b/ledger.db", "sqlite:/var/a@b/ledger.db"),
        ("k" * 200_000, "*** (200,000 letters)"),
        (
            {"home": {"proxy": "http://a:b@c"}, "n": [1, "x://a:b@c"]},
            {"home": {"proxy": "http://***@c"}, "n": [1, "x://***@c"]},
        ),
    ],
)
def test_what_opens_something_is_not_shown(value: Any, shown: Any) -> None:
    """And what does not is."""
    assert without_secrets(value) == shown


def test_an_endless_value_is_cut_in_messages() -> None:
    """A message stays one readable line whatever stands in the file."""
    problem = problem_of(None, None, {"HOSTLEDGER_WORKER__MODE": "x" * 10_000})

    assert len(str(problem)) < 400


def test_settings_are_frozen() -> None:
    """Nothing changes settings once they are read."""
    settings: Any = Settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.worker.mode = "inline"
    with pytest.raises(ValidationError, match="frozen"):
        settings.provider = settings.provider


# --- keys that depend on each other ----------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "culprit"),
    [
        ({"worker.lease_time": "42.9"}, "worker.lease_time"),
        ({"provider.aws.timeouts.read_timeout": "47.5"}, "provider.aws.timeouts.read_timeout"),
        ({"provider.aws.timeouts.connect_timeout": "21"}, "provider.aws.timeouts.connect_timeout"),
        (
            {"worker.lease_time": "100", "provider.aws.timeouts.read_timeout": "90"},
            "worker.lease_time",
        ),
    ],
)
def test_a_lease_outlives_a_call(environ: dict[str, str], culprit: str) -> None:
    """A lease shorter than a call and ten seconds is refused, naming all the keys."""
    problem = problem_of(None, None, {environment_name(key): v for key, v in environ.items()})

    assert environment_name(culprit) == problem.key
    assert "worker.lease_time" in problem.problem
    assert "provider.aws.timeouts.connect_timeout" in problem.problem
    assert "provider.aws.timeouts.read_timeout" in problem.problem


def test_a_lease_just_long_enough() -> None:
    """Connect and read timeouts and ten seconds are enough."""
    settings, _ = read_settings(None, None, {environment_name("worker.lease_time"): "43"})

    assert settings.worker.lease_time == 43


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("provider.aws.launch_chunk", "801"),
        ("provider.aws.fleet_chunk", "801"),
        ("provider.aws.buckets.RunInstances:instances", "[499, 1]"),
    ],
)
def test_a_chunk_fits_its_bucket(key: str, value: str) -> None:
    """A launch that the bucket can never admit is refused, naming both keys."""
    problem = problem_of(None, None, {environment_name(key): value})

    assert environment_name(key) == problem.key
    assert (key if "chunk" in key else "provider.aws.fleet_chunk") in problem.problem
    assert "provider.aws.buckets.RunInstances:instances" in problem.problem


def test_a_chunk_that_fills_its_bucket() -> None:
    """A launch of the whole bucket can be admitted."""
    settings, _ = read_settings(None, None, {environment_name("provider.aws.launch_chunk"): "800"})

    assert settings.provider.aws.launch_chunk == 800


# --- accounts -------------------------------------------------------------------------------

ROLE = "arn:aws:iam::222222222222:role/buyer"


def accounts_of(tmp_path: Path, accounts: Any, **aws: Any) -> dict[str, Aws]:
    """The places that a file with these accounts names."""
    document = {"provider": {"aws": {"region": "eu-west-1", **aws}, "accounts": accounts}}
    settings, warnings = read_settings(written(tmp_path, document), None, {})
    assert warnings == []
    return settings.provider.places()


def test_without_accounts_there_is_one() -> None:
    """It has the name that ledgers of one account have always had."""
    assert Settings().provider.places() == {"default": Aws()}


def test_every_key_of_an_account_is_taken_over(tmp_path: Path) -> None:
    """What differs in an account stands before what holds for all; the rest stays, and so does
    the order."""
    own = {
        "region": "eu-west-3",
        "endpoint_url": "http://127.0.0.1:5001",
        "credential_file": "/etc/aws/other",
        "profile": "other",
        "credential_script": "/opt/other.sh",
        "credential_renew_margin": 60,
        "assume_role": ROLE,
        "external_id": "grid-7",
        "interruption_queue": "http://127.0.0.1:5001/222222222222/notices",
    }
    assert own.keys() | {"priority", "weight"} == Account.model_fields.keys()
    assert own.keys() <= Aws.model_fields.keys()
    places = accounts_of(tmp_path, {"z": own, "a": {}}, launch_chunk=7, external_id="grid-1")

    assert list(places) == ["z", "a"]
    assert places["z"] == Aws.model_validate({**own, "launch_chunk": 7})
    assert places["a"] == Aws(region="eu-west-1", launch_chunk=7, external_id="grid-1")


@pytest.mark.parametrize(
    ("own", "script", "role"),
    [
        ({}, "/opt/all.sh", ROLE),
        ({"profile": "other"}, None, None),
        ({"credential_file": "/etc/aws/other"}, None, None),
        ({"credential_script": "/opt/own.sh"}, "/opt/own.sh", None),
        ({"profile": "other", "assume_role": ROLE}, None, ROLE),
        ({"assume_role": ROLE}, "/opt/all.sh", ROLE),
    ],
)
def test_own_credentials_are_not_hidden_by_the_others(
    tmp_path: Path, own: dict[str, str], script: str | None, role: str | None
) -> None:
    """A script and a role of `provider.aws` would stand before a profile of the account's own."""
    common = {"credential_script": "/opt/all.sh", "assume_role": ROLE}
    place = accounts_of(tmp_path, {"other": own}, **common)["other"]

    assert (place.credential_script, place.assume_role) == (script, role)


def test_a_queue_is_one_accounts(tmp_path: Path) -> None:
    """Another account must not read it, and whoever gave it for all is told."""
    queue = "https://sqs.eu-west-1.amazonaws.com/111111111111/notices"
    aws = {"region": "eu-west-1", "interruption_queue": queue}
    path = written(tmp_path, {"provider": {"aws": aws, "accounts": {"home": {}}}})
    settings, warnings = read_settings(path, None, {})

    assert settings.provider.places()["home"].interruption_queue is None
    (warning,) = warnings
    assert "interruption_queue has no effect with accounts" in warning


@pytest.mark.parametrize(
    ("accounts", "key", "words"),
    [
        ({"home": {"region": None}}, "", "provider.accounts.home has no region"),
        ({"my home": {}}, ".my home", "should match pattern"),
        ({"": {}}, ".", "should match pattern"),
        ({"a" * 65: {}}, f".{'a' * 65}", "should match pattern"),
        ({"home": {"region": "eu-west-1a"}}, ".home.region", "its region is eu-west-1"),
        ({"home": {"weight": 0}}, ".home.weight", "greater than 0, not 0"),
        ({"home": {"weight": True}}, ".home.weight", "a number is needed"),
        ({"home": {"weight": "1e400"}}, ".home.weight", "finite number"),
        ({"home": {"priority": "high"}}, ".home.priority", "valid integer"),
        ({"home": {"regio": "eu-west-1"}}, ".home.regio", ".home.region"),
        ({"home": {"assume_role": "buyer"}}, ".home.assume_role", "a role's ARN"),
        ({"home": {"credential_file": "mine"}}, ".home.credential_file", "an absolute path"),
        ({"home": 7}, ".home", "valid dictionary"),
    ],
)
def test_bad_accounts(tmp_path: Path, accounts: Any, key: str, words: str) -> None:
    """The message names the very place, in a file and in the environment."""
    for own, environ in (
        (written(tmp_path, {"provider": {"accounts": accounts}}), {}),
        (None, {environment_name("provider.accounts"): json.dumps(accounts)}),
    ):
        problem = problem_of(own, None, environ)
        name = "provider.accounts" if own else environment_name("provider.accounts")
        assert problem.key == f"{name}{key}"
        assert words in problem.problem


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {}),
        ({"region": "eu-west-1"}, {"weight": 2}),
        ({"profile": "a"}, {"profile": "a"}),
        ({"credential_script": "/opt/a.sh"}, {"credential_script": "/opt/a.sh"}),
        ({"assume_role": ROLE, "profile": "a"}, {"assume_role": ROLE, "profile": "b"}),
        ({"assume_role": ROLE}, {"assume_role": ROLE.replace("buyer", "seller")}),
    ],
)
def test_two_accounts_are_two_places(tmp_path: Path, one: Any, other: Any) -> None:
    """The same credentials, or the same AWS account, in the same region are one place; in another
    region they are two."""
    aws = {"region": "eu-west-1"}
    path = written(tmp_path, {"provider": {"aws": aws, "accounts": {"one": one, "two": other}}})
    problem = problem_of(path)
    assert problem.key == "provider.accounts"
    assert "provider.accounts.two and provider.accounts.one are the same AWS" in problem.problem

    assert len(accounts_of(tmp_path, {"one": one, "two": {**other, "region": "eu-west-3"}})) == 2


# --- warnings -------------------------------------------------------------------------------


def test_no_region_is_a_warning() -> None:
    """Templates can be read without a region; AWS cannot be called."""
    settings, warnings = read_settings(None, None, {})

    assert settings.provider.aws.region is None
    assert [warning[:16] for warning in warnings] == ["no region is set"]


def test_nothing_to_warn_of() -> None:
    """The defaults with a region are nothing to worry about."""
    assert read_settings(None, None, REGION)[1] == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("provider.aws.settle_gap", "299", "is less than 300 s"),
        ("provider.aws.sweep_interval", "90", "worker.sweep_max_age (90 s) is not more than"),
        ("provider.aws.credential_renew_margin", "60", "without a script or a role to assume"),
    ],
)
def test_second_thoughts(key: str, value: str, words: str) -> None:
    """Allowed and doubtful values are said, once."""
    _, warnings = read_settings(None, None, {**REGION, environment_name(key): value})

    assert len(warnings) == 1
    assert words in warnings[0]


# --- the usual AWS variables ----------------------------------------------------------------


def test_usual_aws_variables() -> None:
    """AWS's own variables count when nothing else does; AWS_REGION before AWS_DEFAULT_REGION."""
    environ = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:5000",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-3",
    }
    aws = read_settings(None, None, environ)[0].provider.aws

    assert (aws.endpoint_url, aws.region) == ("http://127.0.0.1:5000", "eu-west-1")


def test_default_region_variable() -> None:
    """AWS_DEFAULT_REGION alone is enough, an empty AWS_REGION does not hide it."""
    environ = {"AWS_REGION": " ", "AWS_DEFAULT_REGION": "eu-west-3", "AWS_ENDPOINT_URL": ""}
    aws = read_settings(None, None, environ)[0].provider.aws

    assert (aws.endpoint_url, aws.region) == (None, "eu-west-3")


def test_a_bad_usual_variable_is_named() -> None:
    """A bad AWS_REGION is refused by that name."""
    assert problem_of(None, None, {"AWS_REGION": "eu-west-1c"}).key == "AWS_REGION"


# --- precedence -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (set(), None),
        ({"usual"}, "eu-west-1"),
        ({"usual", "ibm"}, "eu-west-2"),
        ({"usual", "ibm", "own"}, "eu-west-3"),
        ({"usual", "ibm", "own", "environment"}, "eu-west-4"),
        ({"usual", "environment"}, "eu-west-4"),
        ({"ibm", "environment"}, "eu-west-4"),
        ({"usual", "own"}, "eu-west-3"),
        ({"own", "environment"}, "eu-west-4"),
    ],
)
def test_precedence(tmp_path: Path, layers: set[str], expected: str | None) -> None:
    """Environment before our file, before IBM's, before the usual variables, before defaults."""
    own = written(tmp_path, nested("provider.aws.region", "eu-west-3"))
    ibm = written(tmp_path, {"AWS_REGION": "eu-west-2"}, "awsprov_config.json")
    environ = {"AWS_REGION": "eu-west-1"} if "usual" in layers else {}
    if "environment" in layers:
        environ[environment_name("provider.aws.region")] = "eu-west-4"
    settings, _ = read_settings(
        own if "own" in layers else None, ibm if "ibm" in layers else None, environ
    )

    assert expected == settings.provider.aws.region


def test_layers_join(tmp_path: Path) -> None:
    """A layer replaces the keys that it names and no others of the same section."""
    own = written(tmp_path, {"provider": {"aws": {"timeouts": {"read_timeout": 20}}}})
    ibm = written(tmp_path, {"AWS_CONNECTION_TIMEOUT_MS": 5000, "LogLevel": "DEBUG"}, "ibm.json")
    settings, _ = read_settings(own, ibm, {"HOSTLEDGER_LOGGING__MAX_ROTATE": "2"})

    assert (
        settings.provider.aws.timeouts.connect_timeout,
        settings.provider.aws.timeouts.read_timeout,
    ) == (5, 20)
    assert (
        settings.logging.level,
        settings.logging.max_file_size,
        settings.logging.max_rotate,
    ) == ("DEBUG", 10, 2)


# --- IBM's file -----------------------------------------------------------------------------


def ibm_settings(
    tmp_path: Path, document: Any, environ: dict[str, str] | None = None
) -> tuple[Settings, list[str]]:
    """The settings and warnings of an IBM file beside a region."""
    path = written(tmp_path, document, "awsprov_config.json")
    return read_settings(None, path, {**REGION, **(environ or {})})


def test_a_file_of_ibms_shape() -> None:
    """A file like IBM's own, tabs and trailing blanks included, is taken as it is."""
    settings, warnings = read_settings(None, str(FIXTURE), {})
    aws = settings.provider.aws

    assert aws.region == "eu-central-1"
    assert aws.credential_file == "/opt/cluster/aws/credentials"
    assert aws.endpoint_url == "https://ec2.eu-central-1.amazonaws.com"
    assert aws.proxy is None
    assert (
        aws.timeouts.connect_timeout,
        aws.pending_timeout,
        aws.creation_timeout,
    ) == (8, 240, 900)
    assert settings.logging.level == "WARN"
    assert [warning.split(": ", 1)[1][:26] for warning in warnings] == [
        "AWS_KEY_FILE is not needed"
    ]


@pytest.mark.parametrize(("name", "value", "key", "expected"), IBM_KEYS)
def test_ibm_keys(tmp_path: Path, name: str, value: Any, key: str, expected: Any) -> None:
    """Each key of IBM's file has its place, as text or as a native value."""
    settings, _ = ibm_settings(tmp_path, {name: value})

    assert (value if expected is None else expected) == value_of(settings, key)


@pytest.mark.parametrize("name", IBM_NAMES)
@pytest.mark.parametrize("absent", ["", "  ", None])
def test_ibm_keys_left_empty(tmp_path: Path, name: str, absent: str | None) -> None:
    """An empty value is an absent key: no change, no warning."""
    settings, warnings = ibm_settings(tmp_path, {name: absent})

    assert read_settings(None, None, REGION) == (settings, warnings)


@pytest.mark.parametrize(("name", "value", "words"), IBM_BAD_VALUES)
def test_ibm_bad_values(tmp_path: Path, name: str, value: Any, words: str) -> None:
    """A bad value is refused with IBM's file and IBM's key."""
    path = written(tmp_path, {"AWS_PROXY_PORT": 1, name: value}, "awsprov_config.json")
    problem = problem_of(None, path)

    assert (path, name) == (problem.path, problem.key)
    assert words in problem.problem
    assert "correct it" in problem.next_step


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("proxy.example", "3128", "http://proxy.example:3128"),
        ("10.0.0.1", 8080, "http://10.0.0.1:8080"),
        ("https://proxy.example", 443, "https://proxy.example:443"),
        ("fd00::1", 3128, "http://[fd00::1]:3128"),
    ],
)
def test_ibm_proxy(tmp_path: Path, host: str, port: Any, expected: str) -> None:
    """Host and port make one proxy address."""
    settings, warnings = ibm_settings(tmp_path, {"AWS_PROXY_HOST": host, "AWS_PROXY_PORT": port})

    assert expected == settings.provider.aws.proxy
    assert warnings == []


def test_ibm_proxy_without_port(tmp_path: Path) -> None:
    """A proxy without its port is refused by the missing key."""
    problem = problem_of(None, written(tmp_path, {"AWS_PROXY_HOST": "proxy.example"}))

    assert (problem.key, problem.problem) == ("AWS_PROXY_PORT", "is needed with AWS_PROXY_HOST")


def test_ibm_proxy_host_that_is_more(tmp_path: Path) -> None:
    """A host that is more than a host is refused by IBM's key."""
    for host in ("proxy.example/x", "proxy.example:1"):
        document = {"AWS_PROXY_HOST": host, "AWS_PROXY_PORT": 1}

        assert problem_of(None, written(tmp_path, document)).key == "AWS_PROXY_HOST"


def test_ibm_proxy_port_alone(tmp_path: Path) -> None:
    """A port without a host does nothing, and that is said."""
    settings, warnings = ibm_settings(tmp_path, {"AWS_PROXY_PORT": "3128"})

    assert settings.provider.aws.proxy is None
    assert len(warnings) == 1
    assert "AWS_PROXY_PORT has no effect" in warnings[0]


def test_ibm_credential_script(tmp_path: Path) -> None:
    """A credential script and its margin are settings; with a script the margin is no surprise."""
    settings, warnings = ibm_settings(
        tmp_path, {"AWS_CREDENTIAL_SCRIPT": "/opt/sts.sh", "AWS_CREDENTIAL_RENEW_MARGIN": "30"}
    )

    assert settings.provider.aws.credential_script == "/opt/sts.sh"
    assert settings.provider.aws.credential_renew_margin == 30
    assert warnings == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_KEY_FILE", "/opt/keys", "AWS_KEY_FILE is not needed"),
        ("AWS_CREDENTIAL_RENEW_MARGIN", "30", "AWS_CREDENTIAL_RENEW_MARGIN has no effect"),
        ("AWS_CONNECTION_TIMEOUT_MS", "30000", "worker.lease_time is 70 s"),
    ],
)
def test_ibm_warnings(tmp_path: Path, name: str, value: str, words: str) -> None:
    """What has no effect, or another one than it says, is named in one warning."""
    _, warnings = ibm_settings(tmp_path, {name: value})

    assert len(warnings) == 1
    assert name in warnings[0]
    assert words in warnings[0]


def test_ibm_unknown_keys(tmp_path: Path) -> None:
    """All unknown keys of IBM's file are one warning."""
    _, warnings = ibm_settings(tmp_path, {"ZETA": 1, "LogLevel": "INFO", "aws_region": "x"})

    assert len(warnings) == 1
    assert warnings[0].endswith("unknown keys, ignored: ZETA, aws_region")


def test_ibm_key_given_twice(tmp_path: Path) -> None:
    """IBM's reader takes the last of two values; so do we, and say so."""
    settings, warnings = ibm_settings(tmp_path, '{"LogLevel": "INFO", "LogLevel": "ERROR"}')

    assert settings.logging.level == "ERROR"
    assert len(warnings) == 1
    assert warnings[0].endswith("given twice, the last one counts: LogLevel")


def test_a_long_ibm_timeout_lengthens_the_lease(tmp_path: Path) -> None:
    """IBM's file works as it is: it has no key for the lease that its timeout needs."""
    settings, warnings = ibm_settings(
        tmp_path,
        {"AWS_CONNECTION_TIMEOUT_MS": 40000},
        {"HOSTLEDGER_PROVIDER__AWS__TIMEOUTS__READ_TIMEOUT": "35"},
    )

    assert settings.worker.lease_time == 85
    assert len(warnings) == 1


def test_an_endless_ibm_timeout_is_cut(tmp_path: Path) -> None:
    """A timeout of weeks would make a lease of weeks; connecting never takes that long."""
    settings, warnings = ibm_settings(tmp_path, {"AWS_CONNECTION_TIMEOUT_MS": 2**31 - 1})

    assert settings.provider.aws.timeouts.connect_timeout == 127
    assert settings.worker.lease_time == 167
    assert len(warnings) == 2


def test_an_ibm_timeout_that_fits_the_lease(tmp_path: Path) -> None:
    """A timeout that the default lease outlives changes no lease."""
    settings, warnings = ibm_settings(tmp_path, {"AWS_CONNECTION_TIMEOUT_MS": 20000})

    assert settings.worker.lease_time == 60
    assert warnings == []


def test_a_chosen_lease_is_not_lengthened(tmp_path: Path) -> None:
    """A lease that the site chose is refused when IBM's timeout outlives it."""
    ibm = written(tmp_path, {"AWS_CONNECTION_TIMEOUT_MS": 40000})
    problem = problem_of(None, ibm, {"HOSTLEDGER_WORKER__LEASE_TIME": "60"})

    assert problem.key == "HOSTLEDGER_WORKER__LEASE_TIME"


# --- log settings handed on by HostFactory ----------------------------------------------------

PROPAGATED = {
    "HF_LOGLEVEL": "LOG_DEBUG",
    "HF_LOG_MAX_FILE_SIZE": "25",
    "HF_LOG_MAX_ROTATE": "9",
}


@pytest.mark.parametrize("accept", ["true", True])
def test_propagated_log_settings(tmp_path: Path, accept: Any) -> None:
    """With ACCEPT_PROPAGATED_LOG_SETTING, HostFactory's come before the file's LogLevel."""
    document = {"ACCEPT_PROPAGATED_LOG_SETTING": accept, "LogLevel": "ERROR"}
    logging = ibm_settings(tmp_path, document, PROPAGATED)[0].logging

    assert (logging.level, logging.max_file_size, logging.max_rotate) == ("DEBUG", 25, 9)


@pytest.mark.parametrize("accept", ["false", False, "", None])
def test_log_settings_not_asked_for(tmp_path: Path, accept: Any) -> None:
    """Without it they are HostFactory's own affair."""
    document = {"ACCEPT_PROPAGATED_LOG_SETTING": accept, "LogLevel": "ERROR"}
    logging = ibm_settings(tmp_path, document, PROPAGATED)[0].logging

    assert (logging.level, logging.max_file_size, logging.max_rotate) == ("ERROR", 10, 5)


@pytest.mark.parametrize(
    ("given_level", "level"),
    [("LOG_TRACE", "TRACE"), ("LOG_WARN", "WARN"), ("fatal", "FATAL"), ("LOG_WARNING", "WARN")],
)
def test_propagated_levels(tmp_path: Path, given_level: str, level: str) -> None:
    """Levels come as LOG_INFO or as INFO."""
    document = {"ACCEPT_PROPAGATED_LOG_SETTING": "true"}
    settings, warnings = ibm_settings(tmp_path, document, {"HF_LOGLEVEL": given_level})

    assert level == settings.logging.level
    assert warnings == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("HF_LOGLEVEL", "LOG_LOUD"), ("HF_LOG_MAX_FILE_SIZE", "0"), ("HF_LOG_MAX_ROTATE", "many")],
)
def test_bad_propagated_settings_are_warnings(tmp_path: Path, name: str, value: str) -> None:
    """HostFactory's slip must not stop the provider."""
    document = {"ACCEPT_PROPAGATED_LOG_SETTING": "true", "LogLevel": "ERROR"}
    settings, warnings = ibm_settings(tmp_path, document, {name: value})

    assert tuple(settings.logging.model_dump().values()) == ("ERROR", 10, 5)
    assert len(warnings) == 1
    assert name in warnings[0]
    assert value in warnings[0]


def test_our_file_comes_before_propagated_settings(tmp_path: Path) -> None:
    """What the site wrote for us it meant for us."""
    own = written(tmp_path, {"logging": {"level": "TRACE"}})
    ibm = written(tmp_path, {"ACCEPT_PROPAGATED_LOG_SETTING": "true"}, "ibm.json")
    logging = read_settings(own, ibm, PROPAGATED)[0].logging

    assert (logging.level, logging.max_file_size) == ("TRACE", 25)


# --- files that cannot be read ---------------------------------------------------------------


@pytest.mark.parametrize("which", ["own", "ibm"])
@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("", (1, 1), "the file is empty"),
        (" \n\t\n", (1, 1), "the file is empty"),
        ('{"worker": {"mode": "au', (1, 21), "not JSON"),
        ('{\n  "worker": {\n    "mode": "auto"', (3, 19), "not JSON"),
        ('{"worker": {}} {', (1, 16), "not JSON"),
        ("[1]", (1, 1), "not a JSON object"),
        ('\n "auto"', (2, 2), "not a JSON object"),
        ('{"worker": NaN}', (1, 1), "NaN is no number"),
        ('{"worker": "\\ud800"}', (1, 1), "not usable JSON"),
        ('{"a":' * 200_000, (1, 1), "not usable JSON"),
    ],
)
def test_broken_files(
    tmp_path: Path, which: str, text: str, where: tuple[int, int], words: str
) -> None:
    """A file that is empty, half written or no object is refused with line and column."""
    path = written(tmp_path, text)
    problem = problem_of(path) if which == "own" else problem_of(None, path)

    assert path == problem.path
    assert where == (problem.line, problem.column)
    assert words in problem.problem
    assert str(problem).startswith(f"{path}: line {where[0]}, column {where[1]}: ")


@pytest.mark.parametrize("cut", range(0, FIXTURE.stat().st_size - 4, 7))
def test_half_written_files(tmp_path: Path, cut: int) -> None:
    """Wherever a file is cut, it is a problem with a place, never another configuration."""
    path = written(tmp_path, FIXTURE.read_text("utf-8")[:cut])

    assert problem_of(None, path).line is not None


def test_missing_file(tmp_path: Path) -> None:
    """A file that is named must be there."""
    path = str(tmp_path / "hostledger.json")

    assert f"{path}: cannot be read (no such file or directory)" in str(problem_of(path))
    assert f"{path}: cannot be read (no such file or directory)" in str(problem_of(None, path))


def test_directory(tmp_path: Path) -> None:
    """A directory is no file."""
    assert "cannot be read (is a directory)" in str(problem_of(str(tmp_path)))


def test_not_utf_8(tmp_path: Path) -> None:
    """Another encoding is named as such."""
    path = tmp_path / "latin.json"
    path.write_bytes('{"worker": "Ü"}'.encode("latin-1"))

    assert "is not UTF-8 text (byte 12)" in str(problem_of(str(path)))


def test_byte_order_mark(tmp_path: Path) -> None:
    """An editor's byte order mark is no fault of the site."""
    path = tmp_path / "bom.json"
    path.write_bytes(b'\xef\xbb\xbf{"worker": {"mode": "inline"}}')

    assert read_settings(str(path), None, {})[0].worker.mode == "inline"


# --- comments -------------------------------------------------------------------------------

COMMENTED = """# our grid
{
  # who owns AWS
  "worker": {
    "mode": "external",  // systemd runs it\t
    /* seconds,
       of course */ "idle_timeout": 20
  },
  "provider": {"aws": {"endpoint_url": "http://ec2.example/a#b", // "x": 1
    "profile": "a /* b */ // c \\" # d"}}
}
// the end"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_comments(tmp_path: Path, newline: str) -> None:
    """Our file may hold comments; what looks like one in a string is none."""
    path = tmp_path / "hostledger.json"
    path.write_bytes(COMMENTED.replace("\n", newline).encode())
    settings, _ = read_settings(str(path), None, {})

    assert (settings.worker.mode, settings.worker.idle_timeout) == ("external", 20)
    assert settings.provider.aws.endpoint_url == "http://ec2.example/a#b"
    assert settings.provider.aws.profile == 'a /* b */ // c " # d'


def test_positions_after_comments(tmp_path: Path) -> None:
    """Line and column of an error count the comments."""
    problem = problem_of(written(tmp_path, "# one\n/* two\n*/ { /* x */ oops"))

    assert (problem.line, problem.column) == (3, 14)


@pytest.mark.parametrize(
    "text", ["{} /* never closed", "{} /", '{"a": 1 # not leading\n}', "/**/", "// only"]
)
def test_what_is_no_comment(tmp_path: Path, text: str) -> None:
    """A comment that is none, and comments alone, are no configuration."""
    assert problem_of(written(tmp_path, text)).line is not None


def test_ibms_file_has_no_comments(tmp_path: Path) -> None:
    """IBM's file is plain JSON, as IBM's own reader takes it."""
    assert problem_of(None, written(tmp_path, "// x\n{}")).line == 1


json_documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.sampled_from('/*#"\\\n\r\t ab\u2028é'))
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.sampled_from('/*#"\\ ab')), inner, max_size=4)
    ),
    max_leaves=12,
)
one_line = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
gaps = st.one_of(
    st.sampled_from(["", " ", "\n", "\t", "\r\n"]),
    one_line.map(lambda words: f"//{words}\n"),
    one_line.map(lambda words: f"\n  #{words}\n"),
    st.tuples(one_line, one_line)
    .map("\n".join)
    .filter(lambda words: "*/" not in words)
    .map(lambda words: f"/*{words}*/"),
)


def tokens(value: Any) -> list[str]:
    """The JSON tokens of a value, between which any comment may stand."""
    match value:
        case dict():
            members = [[json.dumps(k), ":", *tokens(v)] for k, v in value.items()]
        case list():
            members = [tokens(item) for item in value]
        case _:
            return [json.dumps(value, ensure_ascii=False)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    listed = [token for member in members for token in (",", *member)]
    return [opening, *listed[1:], closing]


@given(json_documents, st.data())
def test_any_document_with_any_comments(document: Any, data: st.DataObject) -> None:
    """Comments between any tokens change neither what is read nor where anything stands."""
    pieces = tokens(document)
    between = data.draw(st.lists(gaps, min_size=len(pieces) + 1, max_size=len(pieces) + 1))
    text = "".join(gap + piece for gap, piece in zip(between, [*pieces, ""], strict=True))
    stripped = strip_comments(text)

    assert document == json.loads(stripped)
    assert len(text) == len(stripped)
    assert [text[i] for i, c in enumerate(stripped) if c != " "] == [
        c for c in stripped if c != " "
    ]


@given(json_documents, st.sampled_from([None, 2]))
def test_plain_json_is_left_alone(document: Any, indent: int | None) -> None:
    """JSON without comments passes unchanged, character for character."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)

    assert text == strip_comments(text)


@given(st.text(st.sampled_from('{}[]":,/*#\\\n 1a')))
def test_stripping_any_text_keeps_its_shape(text: str) -> None:
    """Whatever is half written keeps its length and its lines."""
    stripped = strip_comments(text)

    assert len(text) == len(stripped)
    assert [i for i, c in enumerate(text) if c == "\n"] == [
        i for i, c in enumerate(stripped) if c == "\n"
    ]


def test_read_document_tells_of_doubles(tmp_path: Path) -> None:
    """The keys that stand twice in one object are told, wherever they stand."""
    path = written(tmp_path, '{"a": [{"b": 1, "b": 2, "c": 3}], "c": 4}')

    assert read_document(path) == ({"a": [{"b": 2, "c": 3}], "c": 4}, ["b"])
