"""`hostledger store init | status | activate`: the deployment's one store."""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from typing import Any

from application import queries
from application.failures import NotConfigured, StoreError
from interfaces.cli import options, output
from interfaces.read_side import register, site_from, worker_status

PLACES = {
    "conf_dir": ("HF_PROVIDER_CONFDIR", "PRO_CONF_DIR"),
    "work_dir": ("HF_PROVIDER_WORKDIR", "PRO_DATA_DIR"),
    "log_dir": ("HF_PROVIDER_LOGDIR", "PRO_LSF_LOGDIR"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    making = options.add_action(
        actions, "init", init, "make the store of a new deployment, once, and register the instance"
    )
    for option, (variable, _) in PLACES.items():
        making.add_argument(
            f"--{option.replace('_', '-')}",
            type=options.text,
            metavar="DIR",
            help=f"outside HostFactory's environment: its {variable}",
        )
    making.add_argument(
        "--join", type=options.text, metavar="PATH", help="register only, with the store at PATH"
    )
    options.add_action(actions, "status", status, "identity, worker, lease and what is open")
    activating = options.add_action(
        actions, "activate", activate, "make a copied or restored store the living one"
    )
    options.add_reason(activating)
    activating.add_argument(
        "--again", action="store_true", help="although it lives: raise its incarnation"
    )


def run(arguments: argparse.Namespace) -> int:
    return arguments.act(arguments)  # type: ignore[no-any-return]


def _site(arguments: argparse.Namespace) -> Any:
    """The instance that the options and HostFactory's environment name between them."""
    environ = dict(os.environ)
    named = environ.get("HF_PROVIDER_NAME") or environ.get("PROVIDER_NAME")
    if arguments.provider and arguments.provider != named:
        # Another instance than the environment's: its places are not this one's.
        for variables in PLACES.values():
            for variable in variables:
                environ.pop(variable, None)
        environ["HF_PROVIDER_NAME"] = arguments.provider
    for option, (variable, _) in PLACES.items():
        place = getattr(arguments, option)
        if place:
            environ[variable] = place
    try:
        return site_from(environ)
    except NotConfigured as error:
        raise NotConfigured(
            f"{error}; without it give --provider, --conf-dir, --work-dir and --log-dir"
        ) from None


def init(arguments: argparse.Namespace) -> int:
    site = _site(arguments)
    if arguments.join:
        deployment, path = _join(arguments, site)
    else:
        from interfaces.write_side import create

        deployment, path = create(options.writing(arguments, site))
    document = {
        "deployment": deployment,
        "path": path,
        "provider": site.provider,
        "register": register(os.environ, site),
    }
    return output.show_document(arguments, document)


def _join(arguments: argparse.Namespace, site: Any) -> tuple[str, str]:
    """Deployment id and path of a store that is there, when the instance's configuration says it.

    Raises StoreError.
    """
    from interfaces.write_side import make_state_directory

    call = options.reading(arguments, site)
    if not call.storage.is_at(arguments.join):
        raise StoreError(
            f"the configuration of {site.provider} has its store at {call.storage.name}, not at "
            f"{arguments.join}: set {call.storage.place_key} to it in "
            f"{site.own_configuration(call.environ)[0]}, then join again"
        )
    with closing(call.log()) as view:
        deployment = queries.store_status(view, call.now, call.places())["deployment"]
    make_state_directory(site)
    return deployment, call.storage.name


def status(arguments: argparse.Namespace) -> int:
    call = options.reading(arguments)
    with closing(call.any_store()) as view:
        document = queries.store_status(view, call.now, call.places())
    document["provider"] = call.site.provider
    document["worker"] = worker_status(call)
    return output.show_document(
        arguments, document, failed_projections=(), accounts=(), leases=(), sweeps=()
    )


def activate(arguments: argparse.Namespace) -> int:
    from interfaces.write_side import activate as make_live

    call = options.reading(arguments)
    with closing(call.any_store()) as view:
        inert = view.inert
    if not inert and not arguments.again:
        raise StoreError(
            f"{call.storage.name} lives already: only a copy needs to be activated; --again raises "
            "its incarnation all the same"
        )
    incarnation, path = make_live(options.writing(arguments, call.site), arguments.reason)
    return output.show_document(arguments, {"incarnation": incarnation, "path": path})
