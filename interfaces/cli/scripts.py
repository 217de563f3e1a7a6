"""`hostledger scripts --path`: where the five scripts for HostFactory are."""

from __future__ import annotations

import argparse
from pathlib import Path

from interfaces import hostfactory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", action="store_true", required=True, help="print their directory")


def run(arguments: argparse.Namespace) -> int:
    print(Path(hostfactory.__file__).resolve().parent / "scripts")
    return 0
