"""`hostledger hf VERB -f FILE`: the very code of the scripts, for trying a verb by hand."""

from __future__ import annotations

import argparse
import os
import sys

from interfaces.cli import options
from interfaces.hostfactory import verbs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=(*verbs.READS, *verbs.WRITES), metavar="VERB")
    parser.add_argument("-f", dest="file", required=True, metavar="FILE", help="the JSON input")
    parser.add_argument("--provider", type=options.text, metavar="NAME")
    parser.add_argument("--config", type=options.text, metavar="FILE")


def run(arguments: argparse.Namespace) -> int:
    """The verb reads HostFactory's environment: what the options say goes there."""
    os.environ.update(options.environ_of(arguments))
    site = options.site_of(arguments)
    os.environ["HF_PROVIDER_NAME"] = site.provider
    os.environ["HF_PROVIDER_CONFDIR"] = site.conf_dir
    os.environ["HF_PROVIDER_WORKDIR"] = site.work_dir
    os.environ["HF_PROVIDER_LOGDIR"] = site.log_dir
    return verbs.main(sys.executable, arguments.verb, "-f", arguments.file)
