"""`hostledger demo`: a whole HostFactory cycle through the real scripts, in the sandbox.

Nothing outside a temporary directory is touched, and no AWS account is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from interfaces.write_side.processes import sandbox_process

SCRIPTS = Path(__file__).parent.parent / "hostfactory" / "scripts"
TOLD = (
    "template_id",
    "machine_count",
    "pool",
    "aws_request_id",
    "instance_type",
    "zone",
    "name",
    "reason",
    "message",
    "fulfilled",
)
"""Fields that the story tells; `audit history` has them all."""

LONGEST = 60.0
"""Seconds after which the demo gives up waiting for one answer."""

TEMPLATES = {
    "templates": [
        {
            "templateId": "OnDemand-Medium",
            "maxNumber": 20,
            "imageId": "ami-0demo0demo0demo0",
            "subnetId": "subnet-0demo0a, subnet-0demo0b",
            "vmType": "t3.medium",
            "securityGroupIds": ["sg-0demo"],
            "instanceTags": "project=demo",
            "attributes": {
                "type": ["String", "X86_64"],
                "ncores": ["Numeric", "1"],
                "ncpus": ["Numeric", "2"],
                "nram": ["Numeric", "4096"],
            },
        }
    ]
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--machines", type=int, default=3, metavar="N", help="how many to ask for")


class Demo:
    """One site in a temporary directory, spoken to as HostFactory speaks to it."""

    def __init__(self, root: Path, endpoint: str) -> None:
        self.root = root
        for name in ("conf", "work", "log"):
            (root / name).mkdir()
        config = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint, "LogLevel": "INFO"}
        (root / "conf/awsprov_config.json").write_text(json.dumps(config))
        (root / "conf/awsprov_templates.json").write_text(json.dumps(TEMPLATES, indent=2))
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "PRO_", "HOSTLEDGER_", "AWS_"))
        }
        self.environ = {
            **kept,
            "HF_PROVIDER_NAME": "demo",
            "HF_PROVIDER_CONFDIR": f"{root}/conf",
            "HF_PROVIDER_WORKDIR": f"{root}/work",
            "HF_PROVIDER_LOGDIR": f"{root}/log",
            "XDG_CONFIG_HOME": f"{root}/user",
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
        }

    def script(self, verb: str, document: dict[str, Any]) -> dict[str, Any]:
        """Call one of the five scripts as HostFactory does; its answer."""
        path = self.root / "hf_in"
        path.write_text(json.dumps(document))
        began = time.monotonic()
        done = subprocess.run(
            [str(SCRIPTS / f"{verb}.sh"), "-f", str(path)],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        took = (time.monotonic() - began) * 1000
        print(f"  $ {verb}.sh -f {json.dumps(document)[:90]}")
        print(f"    {done.stdout.strip()[:300]}   [{took:.0f} ms]", flush=True)
        if done.returncode != 0:
            raise SystemExit(f"{verb}.sh failed: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def hostledger(self, *arguments: str) -> None:
        """Run one of the operator's commands and show what it prints."""
        print(f"  $ hostledger {' '.join(arguments)}", flush=True)
        command = [sys.executable, "-m", "interfaces.cli.main", *arguments]
        if subprocess.run(command, env=self.environ, check=False).returncode != 0:
            raise SystemExit(f"hostledger {arguments[0]} failed")

    def events_of(self, identifier: str) -> list[dict[str, Any]]:
        """What `hostledger audit history` knows of a thing."""
        command = [sys.executable, "-m", "interfaces.cli.main", "audit", "history", identifier]
        done = subprocess.run(
            [*command, "--output", "json"],
            env=self.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)["events"]  # type: ignore[no-any-return]

    def tell(self, machine_id: str) -> None:
        """The events of a machine and of what it came from and went by, a line each."""
        print(f"  $ hostledger audit history {machine_id}, and of its request, batch and return")
        events = self.events_of(machine_id)
        known = {key: value for event in events for key, value in event["fields"].items()}
        for origin in ("request_id", "batch_id", "return_id"):
            events += self.events_of(known[origin])
        for event in sorted(events, key=lambda event: event["position"]):
            actor = event["actor"]
            facts = ", ".join(
                f"{name} {event['fields'][name]}" for name in TOLD if event["fields"].get(name)
            )
            print(f"    {event['recorded_at'][11:19]}  {event['topic']:<18} {facts}")
            print(f"    {'':<28} by {actor['user']}, {actor['process']}")

    def wait_until_final(self, request_id: str) -> dict[str, Any]:
        """Poll as HostFactory does, with a line of progress; the final entry."""
        document = {"requests": [{"requestId": request_id}]}
        path = self.root / "hf_in"
        path.write_text(json.dumps(document))
        began = time.monotonic()
        before = "-"
        while time.monotonic() - began < LONGEST:
            answer = subprocess.run(
                [str(SCRIPTS / "getRequestStatus.sh"), "-f", str(path)],
                env=self.environ,
                capture_output=True,
                text=True,
                check=False,
            )
            entry: dict[str, Any] = json.loads(answer.stdout)["requests"][0]
            results = [machine["result"] for machine in entry["machines"]]
            told = ", ".join(f"{results.count(r)} {r}" for r in dict.fromkeys(results))
            passed = time.monotonic() - began
            if sys.stdout.isatty():
                print(f"\r    {passed:4.0f} s  {entry['status']}: {told:<50}", end="", flush=True)
            elif told != before or entry["status"] != "running":
                print(f"    {passed:4.0f} s  {entry['status']}: {told}", flush=True)
            before = told
            if entry["status"] != "running":
                print(end="\n" if sys.stdout.isatty() else "")
                return entry
            time.sleep(0.5)
        raise SystemExit(f"\n{request_id} was not final after {LONGEST:.0f} s; see {self.root}/log")


def run(arguments: argparse.Namespace) -> int:
    """Show the cycle; exit status."""
    try:
        sandbox = sandbox_process(boot_time=2.0, shutdown_time=1.0, quotas="aws")
    except ModuleNotFoundError as error:
        print(f"{error}: install the extra, hostledger[sandbox]", file=sys.stderr)
        return 1
    with sandbox, tempfile.TemporaryDirectory(prefix="hostledger-demo-") as root:
        demo = Demo(Path(root), sandbox.url)
        try:
            machine_id = _cycle(demo, arguments.machines)
            print("\n6. One machine's story, as the ledger tells it")
            demo.tell(machine_id)
        finally:
            subprocess.run(
                [sys.executable, "-m", "interfaces.cli.main", "worker", "stop"],
                env=demo.environ,
                capture_output=True,
                check=False,
            )
        left = sandbox.control.live_instances()
    print(f"\nInstances left in the sandbox: {len(left)}.")
    return 1 if left else 0


def _cycle(demo: Demo, machines: int) -> str:
    """Ask, wait, return, wait; the id of one of the machines."""
    print("1. A new deployment: one ledger, made once")
    demo.hostledger("store", "init")
    print("\n2. HostFactory asks what there is, and for machines")
    demo.script("getAvailableTemplates", {})
    template = {"templateId": "OnDemand-Medium", "machineCount": machines}
    asked = demo.script("requestMachines", {"template": template})
    print("\n3. It polls, while a worker launches them behind the scenes")
    entry = demo.wait_until_final(asked["requestId"])
    hosts = [{"machineId": m["machineId"], "name": m["name"]} for m in entry["machines"]]
    for machine in entry["machines"]:
        print(f"    {machine['machineId']}  {machine['name']}  {machine['privateIpAddress']}")
    print("\n4. It asks which of its hosts it must give up (none: they are healthy)")
    demo.script("getReturnRequests", {"machines": hosts})
    print("\n5. It returns them, and polls until they are gone")
    returned = demo.script("requestReturnMachines", {"machines": hosts})
    demo.wait_until_final(returned["requestId"])
    return str(hosts[0]["machineId"])
