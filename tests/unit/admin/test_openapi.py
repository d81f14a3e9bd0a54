"""The OpenAPI document says what is enforced, and is itself sound."""

from __future__ import annotations

import re

from openapi_spec_validator import validate

from sidecar.admin import openapi
from sidecar.admin.auth import Role
from sidecar.admin.errors import Problem
from sidecar.admin.models import Body, parse
from sidecar.admin.table import CALLS


def test_document_is_valid() -> None:
    """The document is OpenAPI 3.1."""
    validate(openapi.document(CALLS))


def test_each_call_is_once_in_the_table() -> None:
    """No method and path stand in the table twice, and no operation id."""
    assert len({(call.method, call.path) for call in CALLS}) == len(CALLS)
    assert len({openapi.operation_id(call) for call in CALLS}) == len(CALLS)


def test_path_parameters_are_declared() -> None:
    """Every `{name}` of a path is a declared parameter, and every declared path parameter is in the path."""
    for call in CALLS:
        declared = {p.name for p in call.parameters if p.where == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", call.path)), call.path


def test_reads_change_nothing() -> None:
    """GET calls take no body and need only the viewer's role; all others need more."""
    for call in CALLS:
        assert (call.method == "GET") == (call.role is Role.VIEWER), call.path
        assert call.method != "GET" or call.takes is None, call.path


def test_every_status_is_explained() -> None:
    """Each status that a call can answer has a description and a body schema."""
    for path in openapi.document(CALLS)["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                assert response["description"], (path, status)
                assert response["content"], (path, status)


def test_empty_bodies_are_optional() -> None:
    """A body is documented as optional where `{}`, and so no body at all, is one that the call takes."""
    document = openapi.document(CALLS)["paths"]
    for call in CALLS:
        if call.takes is not None:
            body = document[openapi.PREFIX + call.path][call.method.lower()]["requestBody"]
            assert body["required"] == (isinstance(call.takes, str) or _refuses(call.takes, b""))


def _refuses(model: type[Body], data: bytes) -> bool:
    try:
        parse(model, data)
    except Problem:
        return True
    return False
