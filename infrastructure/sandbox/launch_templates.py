"""Launch templates: their versions, and what a launch makes of them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import shapes
from .pages import matches, page
from .region import Region
from .wire import AwsError, filters

# API_DescribeLaunchTemplates.html: 1 to 200 a page.
_PAGE_MAX = 200
# CreateLaunchTemplate, LaunchTemplateName: 3 to 128 of these characters.
_NAME = re.compile(r"[a-zA-Z0-9().\-/_]{3,128}")
_ID = re.compile(r"lt-[0-9a-f]{8,17}")
# API_LaunchTemplateTagSpecificationRequest.html
_TAGGED = frozenset({"instance", "volume", "network-interface", "spot-instances-request"})
_FILTERS = frozenset({"create-time", "launch-template-name", "tag-key"})


@dataclass(eq=False)
class Version:
    """One version: its data as CreateLaunchTemplate takes it, nested."""

    number: int
    made_at: float
    data: dict[str, Any]
    description: str | None = None


@dataclass(eq=False)
class Template:
    """A launch template; a version once made never changes."""

    id: str
    name: str
    made_at: float
    versions: dict[int, Version] = field(default_factory=dict)
    default: int = 1

    @property
    def latest(self) -> int:
        """The highest version number."""
        return max(self.versions)


class LaunchTemplates:
    """All launch templates of one account and region."""

    def __init__(self, region: Region, now: Callable[[], float]) -> None:
        self._region = region
        self._now = now
        self._numbers = itertools.count(1)
        self.templates: dict[str, Template] = {}
        region.beside.append(self.templates)

    def answer(self, action: str, params: Mapping[str, str]) -> str | None:
        """The inside of the answer of an action on launch templates; None for any other."""
        match action:
            case "CreateLaunchTemplate":
                return self._create(shapes.read(action, params))
            case "CreateLaunchTemplateVersion":
                return self._create_version(shapes.read(action, params))
            case "ModifyLaunchTemplate":
                return self._modify(shapes.read(action, params))
            case "DescribeLaunchTemplates":
                return self._describe(shapes.read(action, params), params)
            case "DescribeLaunchTemplateVersions":
                return self._describe_versions(shapes.read(action, params))
            case "DeleteLaunchTemplate":
                return self._delete(shapes.read(action, params))
            case "DeleteLaunchTemplateVersions":
                return self._delete_versions(shapes.read(action, params))
        return None

    # -- what launches ask ---------------------------------------------------------------------

    def find(self, asked: Mapping[str, Any]) -> Template:
        """The template that LaunchTemplateId or LaunchTemplateName names.

        Raises InvalidLaunchTemplateId.NotFound, InvalidLaunchTemplateName.NotFoundException
        (errors-overview.html), MissingParameter, InvalidParameterCombination.
        """
        template_id, name = asked.get("LaunchTemplateId"), asked.get("LaunchTemplateName")
        if (template_id is None) == (name is None):
            raise AwsError(
                "MissingParameter" if name is None else "InvalidParameterCombination",
                "Specify either the launch template ID or the launch template name, not both.",
            )
        if template_id is not None:
            if not _ID.fullmatch(template_id):
                raise AwsError(
                    "InvalidLaunchTemplateId.Malformed",
                    f"The specified launch template ID, {template_id}, is not valid.",
                )
            if template_id not in self.templates:
                raise AwsError(
                    "InvalidLaunchTemplateId.NotFound",
                    f"The specified launch template, with template ID {template_id}, does not "
                    "exist.",
                )
            return self.templates[template_id]
        found = next((one for one in self.templates.values() if one.name == name), None)
        if found is None:
            raise AwsError(
                "InvalidLaunchTemplateName.NotFoundException",
                "At least one of the launch templates specified in the request does not exist.",
            )
        return found

    def version(self, asked: Mapping[str, Any]) -> tuple[Template, Version]:
        """The template and version of a launch template specification; $Default when it names no
        version. Raises as `find`, and InvalidLaunchTemplateId.VersionNotFound."""
        template = self.find(asked)
        return template, self._version(template, asked.get("Version", "$Default"))

    def merged(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """RunInstances' parameters with those of the launch template they name.

        What the call says replaces the template's (API_RunInstances.html); tags are joined by
        resource type and key (from memory). `LaunchTemplate` then holds the concrete id and
        version.
        """
        if "LaunchTemplate" not in asked:
            return dict(asked)
        template, version = self.version(asked["LaunchTemplate"])
        found = version.data | dict(asked)
        found["TagSpecifications"] = joined_tags(
            version.data.get("TagSpecifications", ()), asked.get("TagSpecifications", ())
        )
        found["LaunchTemplate"] = {
            "LaunchTemplateId": template.id,
            "LaunchTemplateName": template.name,
            "Version": str(version.number),
        }
        return found

    # -- actions -------------------------------------------------------------------------------

    def _create(self, asked: dict[str, Any]) -> str:
        name = asked.get("LaunchTemplateName", "")
        if not _NAME.fullmatch(name):
            raise AwsError(
                "InvalidLaunchTemplateName.MalformedException",
                "A launch template name must be between 3 and 128 characters, and may contain "
                "letters, numbers, and the following characters: - ( ) . / _.",
            )
        if any(one.name == name for one in self.templates.values()):
            raise AwsError(
                "InvalidLaunchTemplateName.AlreadyExistsException",
                "Launch template name already in use.",
            )
        tags = self._tags(asked)
        data = self._data(asked)
        template = Template(self._new_id(), name, self._now())
        template.versions[1] = Version(1, self._now(), data, asked.get("VersionDescription"))
        self.templates[template.id] = template
        if tags:
            self._region.tags[template.id] = tags
        return shapes.xml("CreateLaunchTemplate", {"LaunchTemplate": self._row(template)})

    def _create_version(self, asked: dict[str, Any]) -> str:
        template = self.find(asked)
        data = self._data(asked)
        if (source := asked.get("SourceVersion")) is not None:
            # "The new version inherits the same launch parameters as the source version, except
            # for parameters that you specify" (API_CreateLaunchTemplateVersion.html).
            data = self._version(template, source).data | data
        number = template.latest + 1
        version = Version(number, self._now(), data, asked.get("VersionDescription"))
        template.versions[number] = version
        rendered = self._version_row(template, version)
        return shapes.xml("CreateLaunchTemplateVersion", {"LaunchTemplateVersion": rendered})

    def _modify(self, asked: dict[str, Any]) -> str:
        template = self.find(asked)
        if (default := asked.get("DefaultVersion")) is not None:
            template.default = self._version(template, default).number
        return shapes.xml("ModifyLaunchTemplate", {"LaunchTemplate": self._row(template)})

    def _describe(self, asked: dict[str, Any], params: Mapping[str, str]) -> str:
        names = asked.get("LaunchTemplateNames", [])
        found = [self.find({"LaunchTemplateId": one}) for one in asked.get("LaunchTemplateIds", [])]
        found += [self.find({"LaunchTemplateName": one}) for one in names]
        wanted = filters(params)
        if not found and not names and not asked.get("LaunchTemplateIds"):
            found = list(self.templates.values())
        found = [one for one in found if matches(wanted, _FILTERS, self._attributes(one))]
        rows, token = page(found, asked, _PAGE_MAX, lambda one: one.id)
        return shapes.xml(
            "DescribeLaunchTemplates",
            {"LaunchTemplates": [self._row(one) for one in rows], "NextToken": token},
        )

    def _describe_versions(self, asked: dict[str, Any]) -> str:
        named = "LaunchTemplateId" in asked or "LaunchTemplateName" in asked
        texts = asked.get("Versions", [])
        pairs: list[tuple[Template, Version]] = []
        if not named:
            if not texts or any(text not in ("$Latest", "$Default") for text in texts):
                raise AwsError(
                    "MissingParameter",
                    "Without a launch template, Versions must be $Latest or $Default.",
                )
            for template in self.templates.values():
                pairs += [(template, self._version(template, text)) for text in texts]
        else:
            template = self.find(asked)
            low, high = int(asked.get("MinVersion", 1)), asked.get("MaxVersion")
            numbers = [
                number
                for number in sorted(template.versions, reverse=True)
                if low <= number <= int(high or number)
            ]
            if texts:
                pairs = [(template, self._version(template, text)) for text in texts]
            else:
                pairs = [(template, template.versions[number]) for number in numbers]
        pairs = sorted(dict.fromkeys(pairs), key=_place_in_order)
        rows, token = page(pairs, asked, _PAGE_MAX, _place_in_order)
        found = [self._version_row(template, version) for template, version in rows]
        return shapes.xml(
            "DescribeLaunchTemplateVersions",
            {"LaunchTemplateVersions": found, "NextToken": token},
        )

    def _delete(self, asked: dict[str, Any]) -> str:
        template = self.find(asked)
        row = self._row(template)
        del self.templates[template.id]
        self._region.tags.pop(template.id, None)
        return shapes.xml("DeleteLaunchTemplate", {"LaunchTemplate": row})

    def _delete_versions(self, asked: dict[str, Any]) -> str:
        template = self.find(asked)
        done, failed = [], []
        for text in asked.get("Versions", []):
            number = int(text) if text.isdigit() else -1
            row: dict[str, Any] = {
                "LaunchTemplateId": template.id,
                "LaunchTemplateName": template.name,
                "VersionNumber": number,
            }
            if number == template.default:
                why = "launchTemplateVersionIsDefault"  # not in AWS's list; from memory
                failed.append(row | {"ResponseError": {"Code": "unexpectedError", "Message": why}})
            elif number not in template.versions:
                why = "launchTemplateVersionDoesNotExist"
                failed.append(row | {"ResponseError": {"Code": why, "Message": why}})
            else:
                del template.versions[number]
                done.append(row)
        return shapes.xml(
            "DeleteLaunchTemplateVersions",
            {
                "SuccessfullyDeletedLaunchTemplateVersions": done,
                "UnsuccessfullyDeletedLaunchTemplateVersions": failed,
            },
        )

    # -- parts ---------------------------------------------------------------------------------

    def _version(self, template: Template, text: str) -> Version:
        number = {"$Latest": template.latest, "$Default": template.default}.get(text)
        if number is None and text.isdigit():
            number = int(text)
        if number not in template.versions:
            raise AwsError(
                "InvalidLaunchTemplateId.VersionNotFound",
                f"Could not find launch template version: {text}.",
            )
        return template.versions[number]

    def _data(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        data: dict[str, Any] = asked.get("LaunchTemplateData", {})
        if not data and "SourceVersion" not in asked:
            raise AwsError(
                "InvalidRequest", "The launch template data must hold at least one parameter."
            )
        for specification in data.get("TagSpecifications", ()):
            if specification.get("ResourceType") not in _TAGGED:
                raise AwsError(
                    "InvalidParameterValue",
                    f"'{specification.get('ResourceType')}' is not a valid taggable resource "
                    "type for this operation.",
                )
        return data

    def _new_id(self) -> str:
        mark = self._region.mark.replace("-", "")[:8]
        return f"lt-{mark}{next(self._numbers):09x}"

    def _tags(self, asked: Mapping[str, Any]) -> dict[str, str]:
        found = {}
        for specification in asked.get("TagSpecifications", ()):
            if specification.get("ResourceType") != "launch-template":
                raise AwsError(
                    "InvalidParameterValue",
                    f"'{specification.get('ResourceType')}' is not a valid taggable resource "
                    "type for this operation.",
                )
            for pair in specification.get("Tags", ()):
                found[pair["Key"]] = pair.get("Value", "")
        return found

    def _row(self, template: Template) -> dict[str, Any]:
        tags = self._region.tags.get(template.id, {})
        return {
            "LaunchTemplateId": template.id,
            "LaunchTemplateName": template.name,
            "CreateTime": template.made_at,
            "CreatedBy": f"arn:aws:iam::{self._region.account_id}:user/sandbox",
            "DefaultVersionNumber": template.default,
            "LatestVersionNumber": template.latest,
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()] or None,
        }

    def _version_row(self, template: Template, version: Version) -> dict[str, Any]:
        return {
            "LaunchTemplateId": template.id,
            "LaunchTemplateName": template.name,
            "VersionNumber": version.number,
            "VersionDescription": version.description,
            "CreateTime": version.made_at,
            "CreatedBy": f"arn:aws:iam::{self._region.account_id}:user/sandbox",
            "DefaultVersion": version.number == template.default,
            "LaunchTemplateData": version.data,
        }

    def _attributes(self, template: Template) -> Callable[[str], list[str]]:
        tags = self._region.tags.get(template.id, {})

        def of(name: str) -> list[str]:
            if name.startswith("tag:"):
                key = name.removeprefix("tag:")
                return [tags[key]] if key in tags else []
            if name == "tag-key":
                return list(tags)
            return [template.name if name == "launch-template-name" else str(template.made_at)]

        return of


def joined_tags(
    first: Sequence[Mapping[str, Any]], then: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Tag specifications of both; of a key in both the latter's value counts."""
    found: dict[str, dict[str, str]] = {}
    for specification in (*first, *then):
        tags = found.setdefault(specification["ResourceType"], {})
        for pair in specification.get("Tags", ()):
            tags[pair["Key"]] = pair.get("Value", "")
    return [
        {"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
        for kind, tags in found.items()
    ]


def _place_in_order(pair: tuple[Template, Version]) -> str:
    """The newest version of a template comes first."""
    template, version = pair
    return f"{template.id} {10**9 - version.number}"
