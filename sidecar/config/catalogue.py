"""Every key of the schema as a row: for error messages, the JSON Schema and the reference page alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from sidecar.config.kinds import Kind
from sidecar.config.schema import Config
from sidecar.config.sections import Section

JSON_SCHEMA_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True)
class Key:
    """
    One key of a section.

    Attributes:
        name: As it is written.
        section: What stands below it; None for a value.
        kind: What a value must be; None for a section.
        listed: Its value is a list of such sections or values.
        required: It has no default.
        default: As it would be written; None where absence means something of its own.
        meaning: One sentence.
    """

    name: str
    section: type[Section] | None
    kind: Kind[Any] | None
    listed: bool
    required: bool
    default: Any
    meaning: str


def keys(section: type[Section]) -> Iterator[Key]:
    """Yield the keys of *section* in the order of the schema."""
    for name, field in section.model_fields.items():
        below, listed = _below(field.annotation)
        kind = None if below else next(iter(_kinds(field.metadata, field.annotation)))
        default = None if field.is_required() else _written(section, name, field)
        yield Key(name, below, kind, listed, field.is_required(), default, field.description or "")


def find(steps: tuple[str | int, ...], section: type[Section] = Config) -> Key | None:
    """Return the key at *steps* below *section*; indices of lists are passed over."""
    found: Key | None = None
    below: type[Section] | None = section
    for step in steps:
        if isinstance(step, str):
            found = next((key for key in keys(below) if key.name == step), None) if below else None
            below = found.section if found else None
    return found


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a config file, for editors and other programs."""
    return {"$schema": JSON_SCHEMA_DRAFT, "title": "sidecar", **_section_schema(Config)}


def _section_schema(section: type[Section]) -> dict[str, Any]:
    rows = list(keys(section))
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {row.name: _key_schema(row) for row in rows},
    }
    required = [row.name for row in rows if row.required]
    return schema | ({"required": required} if required else {})


def _key_schema(key: Key) -> dict[str, Any]:
    one = _section_schema(key.section) if key.section else dict(key.kind.schema) if key.kind else {}
    schema = {"type": "array", "items": one} if key.listed else one
    shown = {} if key.default is None else {"default": key.default}
    return {"description": key.meaning, **schema, **shown}


def _below(annotation: Any) -> tuple[type[Section] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    if get_origin(annotation) is list:
        return _below(get_args(annotation)[0])[0], True
    if get_origin(annotation) in (Union, UnionType):
        found = next((below for each in get_args(annotation) if (below := _below(each)[0])), None)
        return found, False
    return None, False


def _kinds(metadata: list[Any], annotation: Any) -> Iterator[Kind[Any]]:
    yield from (each for each in metadata if isinstance(each, Kind))
    for below in get_args(annotation):
        yield from _kinds(list(get_args(below)[1:]) if get_origin(below) is Annotated else [], below)


def _written(section: type[Section], name: str, field: FieldInfo) -> Any:
    if field.default is None:
        return None
    return section.model_construct(**{name: field.default}).model_dump(mode="json", include={name})[name]
