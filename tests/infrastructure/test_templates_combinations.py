"""Which fields of a template go together, and what has no effect beside others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infrastructure.templates.fields import names
from infrastructure.templates.ibm import Known, read_templates
from tests.infrastructure.test_templates import ABSENT, changed, read, refused, served, written
from tests.infrastructure.test_templates_fields import ABIS, EFA, ROLE, SPOT, WEIGHED


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        (
            {**SPOT, "providerApi": "RunInstances", "percentOnDemand": 10},
            "percentOnDemand",
            "a fleet",
        ),
        (
            {"vmType": ABSENT, "abisInstanceRequirements": ABIS, "providerApi": "RunInstances"},
            "abisInstanceRequirements",
            "RunInstances takes one instance type",
        ),
        ({"providerApi": "RunInstances", "fleetType": "instant"}, "fleetType", "not RunInstances"),
        (
            {**SPOT, "providerApi": "SpotFleet"},
            "fleetRole",
            "is required with providerApi SpotFleet",
        ),
        (
            {**SPOT, "providerApi": "SpotFleet", "fleetRole": ROLE, "fleetType": "instant"},
            "fleetType",
            "request or maintain, not instant",
        ),
        (
            {"providerApi": "ASG", "priceType": "heterogeneous"},
            "priceType",
            "an Auto Scaling group",
        ),
        ({"providerApi": "ASG", "fleetType": "request"}, "fleetType", "always maintains"),
        (
            {**SPOT, "providerApi": "ASG", "allocationStrategy": "diversified"},
            "allocationStrategy",
            "no strategy diversified",
        ),
        ({"providerApi": "ASG", "allOrNothing": True}, "allOrNothing", "machine by machine"),
        ({"fleetType": "request", "allOrNothing": True}, "allOrNothing", "type request"),
        ({"fleetType": "maintain", "allOrNothing": True}, "allOrNothing", "type maintain"),
        ({"priceType": "heterogeneous", "allOrNothing": True}, "allOrNothing", "heterogeneous"),
        ({**SPOT, "percentOnDemand": 50, "allOrNothing": True}, "allOrNothing", "two markets"),
        ({**SPOT, **WEIGHED, "allOrNothing": True}, "allOrNothing", "one instance type in one"),
        (
            {**SPOT, "subnetId": "subnet-1,subnet-2", "allOrNothing": True},
            "allOrNothing",
            "one instance type in one",
        ),
        ({**SPOT, "tenancy": "host"}, "tenancy", "Dedicated Hosts"),
        ({**SPOT, "capacityReservation": {"id": "cr-1"}}, "capacityReservation", "spot machines"),
        ({"placement": {"partitionNumber": 1}}, "placement.partitionNumber", "placementGroupName"),
        ({"placement": {"hostId": "h-1"}}, "placement.hostId", "needs tenancy host"),
        (
            {"networkInterfaces": [{"DeviceIndex": 0}], **EFA},
            "efaCount",
            "or networkInterfaces, not both",
        ),
        (
            {**EFA, "associatePublicIpAddress": True},
            "associatePublicIpAddress",
            "several interfaces",
        ),
        (
            {"providerApi": "ASG", "launchTemplateId": "lt-1", "subnetId": ABSENT},
            "subnetId",
            "is required",
        ),
    ],
)
def test_what_cannot_work_together(
    tmp_path: Path, fields: dict[str, Any], field: str, words: str
) -> None:
    """What AWS would refuse at every launch is refused before the first."""
    problem = refused(tmp_path, **fields)

    assert (field, True) == (problem.field, words in problem.problem)


def test_overrides_of_a_fleet_that_stays(tmp_path: Path) -> None:
    """AWS takes 300 pairs of type and subnet for a fleet of type request or maintain."""
    fields = {
        **SPOT,
        "vmType": ABSENT,
        "vmTypes": {f"m5.x{i}large": 1 for i in range(61)},
        "subnetId": [f"subnet-{i}" for i in range(5)],
    }

    assert served(tmp_path, **fields)["price_type"] == "spot"
    assert "305 pairs" in refused(tmp_path, **fields, fleetType="request").problem


@pytest.mark.parametrize(
    ("accounts", "fatal"),
    [(None, []), (["research", "other"], []), (["research"], [False]), (["default"], [True])],
)
def test_accounts_of_the_configuration(
    tmp_path: Path, accounts: list[str] | None, fatal: list[bool]
) -> None:
    """A template whose accounts the site has not could never be served."""
    entry = changed(accounts={"research": {}, "other": {}})
    path = written(tmp_path, {"templates": [entry]})
    documents, problems = read_templates(path, Known(accounts=accounts))

    assert [problem.fatal for problem in problems] == fatal
    assert len(documents) == (0 if fatal == [True] else 1)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 70_000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["id", "size", "deviceName", "a", "Overrides"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(names()), _json, min_size=1, max_size=4))
@settings(max_examples=400)
def test_whatever_a_field_holds(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]
) -> None:
    """Any JSON in any field is a document or a problem, never an accident, and the other
    templates are served."""
    tmp_path = tmp_path_factory.mktemp("templates")
    documents, problems = read(tmp_path, changed(**fields), changed(templateId="whole"))

    assert documents[-1]["template_id"] == "whole"
    assert len(documents) == 2 or any(problem.fatal for problem in problems)
    assert documents == json.loads(json.dumps(documents, allow_nan=False))


def test_two_spellings_of_a_field(tmp_path: Path) -> None:
    """ORB's spelling and IBM's at once are a question, not an answer."""
    problem = refused(tmp_path, providerApi="EC2Fleet", provider_api="ASG")

    assert (problem.field, "not both" in problem.problem) == ("provider_api", True)


def test_an_expiry_that_a_deadline_overrules(tmp_path: Path) -> None:
    """Our own deadline counts, and the other is said to have no effect."""
    documents, problems = read(
        tmp_path, changed(**SPOT, fulfilmentDeadline=60, spotFleetRequestExpiry=5)
    )

    assert documents[0]["fulfilment_deadline"] == 60
    assert [p.field for p in problems] == ["spotFleetRequestExpiry"]
    assert problems[0].problem == "without effect on a spot template"
