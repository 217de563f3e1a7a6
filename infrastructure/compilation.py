"""From the site's files to the compiled form: validation by pydantic, done once a change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from application.json_text import dumps
from domain.identifiers import sha256
from infrastructure.compiled import file_facts
from infrastructure.configuration import ConfigurationProblem, read_settings
from infrastructure.site import Site, is_lsf
from infrastructure.telemetry.journal import Journal
from infrastructure.templates.ibm import Known, read_templates, revision, wire_template
from infrastructure.templates.instance_types import known_types, types_file


def compile_sources(
    site: Site, paths: list[str | None], environ: Mapping[str, str]
) -> tuple[str, list[str], dict[str, Any]]:
    """What is wrong ("" for nothing), the lines of the compiled form after its key, and which
    further files went into it, each with its facts.

    With sound settings and broken templates the lines are the settings alone, with broken settings
    there are none. What is only doubtful (an unknown key, a template that is left out) goes to the
    log, once.
    """
    own, ibm, templates_path = paths
    try:
        settings, warnings = read_settings(own, ibm, environ)
    except ConfigurationProblem as problem:
        return str(problem), [], {}
    document = settings.model_dump(mode="json")
    journal = Journal(site.log_file, document["logging"])
    for warning in warnings:
        journal.warn("configuration", message=warning)
    further: dict[str, Any] = {}
    try:
        accounts = list(settings.provider.places())
        templates = _templates(site, templates_path, journal, accounts, further)
    except ConfigurationProblem as problem:
        journal.warn("templates", message=str(problem))
        return str(problem), [dumps(document)], further
    answer = json.dumps(
        [wire_template(t, lsf=is_lsf(environ)) for t in templates],
        ensure_ascii=False,
        separators=(",", ":"),
    )
    lines = [dumps(document), answer if templates else "", *(_line(t) for t in templates)]
    return "", lines, further


def _templates(
    site: Site, path: str | None, journal: Journal, accounts: list[str], further: dict[str, Any]
) -> list[dict[str, Any]]:
    """The valid templates, maybe none. Raises ConfigurationProblem when the file cannot be read."""
    if path is None:
        looked = ", ".join(site.candidates("templates"))
        raise ConfigurationProblem(
            site.conf_dir, "", "no templates file is there", f"put one in place of: {looked}"
        )
    facts_path = types_file(site.state_dir)
    further[facts_path] = file_facts(facts_path)
    known = Known(known_types(facts_path), accounts)
    templates, problems = read_templates(path, known, further)
    for problem in problems:
        journal.warn("template", message=str(problem))
    return templates


def _line(template: dict[str, Any]) -> str:
    """A template as a command takes it. What goes into user data may be secret: the event that
    holds the content names it by digest, and the body goes beside the log."""
    bodies = {}
    content = dict(template)
    variables = content.get("user_data_variables")
    if variables:
        body = dumps(variables)
        digest = sha256(body.encode()).hexdigest()
        content["user_data_variables"] = {"sha256": digest}
        bodies[digest] = body
    return dumps(
        {
            "template_id": template["template_id"],
            "revision": revision(template),
            "content": content,
            "bodies": bodies,
        }
    )
