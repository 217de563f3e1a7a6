"""Every operation of the OpenAPI document with whatever fits it and whatever does not: no answer is
a defect of ours, and each is as the document says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import CheckContext
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from starlette.testclient import TestClient

from interfaces.rest.app import create_app
from tests.interfaces.commands import Run, fulfilled
from tests.interfaces.rest import new_token
from tests.world import World

EXAMPLES = 15
