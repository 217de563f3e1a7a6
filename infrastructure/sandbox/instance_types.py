"""DescribeInstanceTypes: moto's real numbers, in the pages that AWS answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moto.core.exceptions import ServiceException

from . import shapes
from .pages import page
from .region import Region
from .wire import AwsError, filters

# API_DescribeInstanceTypes.html: 5 to 100 a page, 100 types a call.
_PAGE_MIN, _PAGE_MAX = 5, 100
_TYPES_MAX = 100


def describe(region: Region, params: Mapping[str, str]) -> str:
    """The inside of the answer, in the order of the names.

    A call without MaxResults is answered in pages of 100 too (from memory). Raises
    InvalidInstanceType when one of the types is unknown, and InvalidParameterValue.
    """
    asked = shapes.read("DescribeInstanceTypes", params)
    names = list(dict.fromkeys(asked.get("InstanceTypes", [])))
    if len(asked.get("InstanceTypes", [])) > _TYPES_MAX:
        raise AwsError("InvalidParameterValue", f"At most {_TYPES_MAX} instance types a call.")
    if asked.get("MaxResults", _PAGE_MIN) < _PAGE_MIN:
        raise AwsError("InvalidParameterValue", f"MaxResults is at least {_PAGE_MIN}.")
    try:
        found: list[Any] = region.describe_instance_types(names, dict(filters(params)))
    except ServiceException as error:
        raise AwsError(error.code, str(error.message)) from error
    except NotImplementedError as missing:
        raise AwsError("InvalidAction", f"The sandbox cannot do this: {missing}") from missing
    found = sorted(found, key=_name)
    rows, token = page(found, asked, _PAGE_MAX, _name)
    content = {"InstanceTypes": rows, "NextToken": token}
    return shapes.xml("DescribeInstanceTypes", content)


def _name(facts: Mapping[str, Any]) -> str:
    return str(facts["InstanceType"])
