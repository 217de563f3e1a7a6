"""Where things are: one provider instance's configuration, state and log, from the environment.

HostFactory sets HF_PROVIDER_*; LSF's resource connector PRO_* (IBM Spectrum Symphony 7.3.2,
provider plug-in interface; LSF resource connector).
"""

from __future__ import annotations

import os

from application.failures import NotConfigured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_CONFIGURATION = "/etc/hostledger/config.json"


class Site:
    """Absolute paths of one provider instance. `log_file` and `conf_dir` may be "" when unknown."""

    def __init__(self, provider: str, conf_dir: str, work_dir: str, log_dir: str) -> None:
        self.provider = provider
        self.conf_dir = conf_dir
        self.work_dir = work_dir
        self.log_dir = log_dir
        self.state_dir = work_dir + "/hostledger"
        self.log_file = f"{log_dir}/hostledger.{provider}.log" if log_dir else ""
        self.lay_out(self.state_dir)

    def lay_out(self, directory: str) -> None:
        """Where what goes with the store lies: sightings, the worker's status and lock, what is
        told of memory."""
        self.sightings = directory + "/seen.jsonl"
        self.worker_status = directory + "/worker.json"
        self.worker_lock = directory + "/worker.lock"
        self.worker_words = directory + "/worker.err"
        self.metrics_dir = directory + "/metrics"
        self.memory = directory + "/memory"

    def actor(self, process: str) -> dict[str, str]:
        """Who acts, for the ledger: OS user, provider instance, process."""
        uid = os.geteuid()
        try:
            import pwd

            user = pwd.getpwuid(uid).pw_name
        except (ImportError, KeyError):
            user = str(uid)
        return {"user": user, "provider": self.provider, "process": f"{process}[{os.getpid()}]"}

    def candidates(self, kind: str) -> list[str]:
        """Where IBM's `config` or `templates` file may be, first match first."""
        names = [f"{self.provider}prov_{kind}.json", f"awsprov_{kind}.json"]
        return [
            f"{self.conf_dir}/{below}{name}"
            for below in ("", "conf/")
            for name in dict.fromkeys(names)
        ]

    def own_configuration(self, environ: Mapping[str, str]) -> list[str]:
        """Where our own configuration file may be; a named one is the only one."""
        named = environ.get("HOSTLEDGER_CONFIG")
        if named:
            return [os.path.abspath(named)]
        return [f"{self.conf_dir}/hostledger.json", SYSTEM_CONFIGURATION]


def is_lsf(environ: Mapping[str, str]) -> bool:
    """Whether LSF's resource connector calls, and not HostFactory, whose variables come first."""
    return not environ.get("HF_PROVIDER_NAME") and bool(environ.get("PROVIDER_NAME"))


def site_from(environ: Mapping[str, str]) -> Site:
    """The instance that HostFactory's (or LSF's) environment names. Raises NotConfigured."""
    provider = environ.get("HF_PROVIDER_NAME") or environ.get("PROVIDER_NAME") or ""
    if not provider:
        raise NotConfigured("HF_PROVIDER_NAME is not set: which provider instance is this?")
    letters = provider.replace("-", "").replace("_", "")
    if not letters.isascii() or not letters.isalnum() or len(provider) > 64:
        raise NotConfigured(
            f"HF_PROVIDER_NAME is {provider[:70]!r}: "
            "up to 64 ASCII letters, digits, - and _ are allowed"
        )

    def place(own: str, lsf: str, top: str, below: str, required: bool = True) -> str:
        path = environ.get(own) or environ.get(lsf)
        if not path and environ.get(top):
            path = environ[top] + below
        if not path:
            if required:
                raise NotConfigured(f"neither {own} nor {top} is set: HostFactory sets them")
            return ""
        path = path.rstrip("/") or "/"
        return path if path.startswith("/") else os.path.abspath(path)

    below = f"/providers/{provider}"
    return Site(
        provider,
        place("HF_PROVIDER_CONFDIR", "PRO_CONF_DIR", "HF_CONFDIR", below),
        place("HF_PROVIDER_WORKDIR", "PRO_DATA_DIR", "HF_WORKDIR", below),
        place("HF_PROVIDER_LOGDIR", "PRO_LSF_LOGDIR", "HF_LOGDIR", "", required=False),
    )
