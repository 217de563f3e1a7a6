"""`hostledger scripts --path`: where the five scripts for HostFactory are, ready to be called."""

from __future__ import annotations

import argparse
import compileall
import os
import sys
from importlib.util import cache_from_source
from pathlib import Path

from interfaces import hostfactory

PACKAGES = ("domain", "application", "infrastructure", "interfaces")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--path",
        action="store_true",
        required=True,
        help="print their directory, and compile what they import where that was not done yet",
    )


def run(arguments: argparse.Namespace) -> int:
    scripts = Path(hostfactory.__file__).resolve().parent / "scripts"
    compile_code(scripts.parents[2])
    print(scripts)
    return 0


def compile_code(root: Path) -> None:
    """Some installers leave that to the first run. Where HostFactory's account may not write, it
    would be done anew at each call."""
    for package in PACKAGES:
        compileall.compile_dir(root / package, quiet=2)
    missing = [
        path
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
        if not os.path.exists(cache_from_source(str(path)))
    ]
    if missing:
        print(
            f"hostledger: {len(missing)} modules are not compiled, {missing[0]} the first: unless "
            f"{root} can be written, each call compiles what it imports, which doubles its time; "
            "run this again as the account that owns the installation",
            file=sys.stderr,
        )
