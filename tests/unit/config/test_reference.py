"""The generated pages and the JSON Schema follow the schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from sidecar.config import reference
from sidecar.config.catalogue import find, keys
from sidecar.config.load import ConfigErrors, json_schema, load
from sidecar.config.schema import STATIC_KEYS, Config
from sidecar.config.tree import parse
from sidecar.reasons import TABLE

ROOT = Path(__file__).parents[3]
ANNOTATED = (ROOT / "config/sidecar.yaml").read_text(encoding="utf-8")
FILES = [ROOT / "config/sidecar.yaml", ROOT / "config/minimal.yaml", *sorted((ROOT / "config/examples").iterdir())]
SCHEMA = jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize(
    ("page", "made"),
    [(reference.SETTINGS_PAGE, reference.settings_page), (reference.REASONS_PAGE, reference.reasons_page)],
)
def test_a_committed_page_is_not_stale(page: Path, made: object) -> None:
    """
    Each page is what `python -m sidecar.config.reference` writes; run it when this fails.
    """
    assert callable(made)
    assert made() == (ROOT / page).read_text(encoding="utf-8")


def test_every_setting_stands_in_the_annotated_file() -> None:
    """
    Each key that does something appears in `config/sidecar.yaml`, in use or in a comment.
    """
    names = {row.path.rpartition(".")[2].removesuffix("[]") for row in reference.settings()}
    assert sorted(name for name in names if f"{name}:" not in ANNOTATED) == []


def test_every_setting_and_reason_has_a_row_and_a_meaning() -> None:
    """
    No key without its sentence, no reason without its row.
    """
    settings, reasons = reference.settings_page(), reference.reasons_page()
    assert [
        row.path
        for row in reference.settings()
        if not row.meaning.endswith((".", "?")) or f"| `{row.path}` |" not in settings
    ] == []
    assert [reason for reason in TABLE if f"| `{reason}` |" not in reasons] == []


def test_the_static_keys_are_keys() -> None:
    """
    Each static key exists in the schema and is marked so on the page.
    """
    assert set(STATIC_KEYS) <= {row.path for row in reference.settings() if row.static}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_shipped_config_fits_the_json_schema(file: Path) -> None:
    """
    What the loader takes, an editor with the JSON Schema takes as well.
    """
    SCHEMA.check_schema(json_schema())
    assert [error.message for error in SCHEMA.iter_errors(parse(file.read_text(encoding="utf-8"), "f").plain())] == []


@pytest.mark.parametrize(
    "text",
    [
        "listn: 1",
        "drain: {grace: 30}",
        "mode: 'off'",
        "routes: [{match: {path: /a}}]",
        "routes: [{name: a, limit: {mode: shaped}}]",
        "respond: {max_refused: 150}",
        "notify: [{type: pager}]",
        "workers: 0",
    ],
)
def test_what_the_loader_refuses_by_shape_the_json_schema_refuses(text: str) -> None:
    """
    Unknown keys, wrong units and words, missing keys and numbers out of range fail in both.
    """
    with pytest.raises(ConfigErrors):
        load(text, name="f", environ={}, flags={"--upstream": "http://a"})
    assert not SCHEMA.is_valid(parse(text, "f").plain())


def test_every_default_is_written_as_it_would_be_typed() -> None:
    """
    The JSON Schema's defaults are texts that the loader reads: a config made of them equals the empty one.
    """
    absent = ("notify", "routes", "tls")  # none by default: a list, or nothing
    written = {key.name: key.default for key in keys(Config) if key.name not in absent}
    flags = {"--upstream": "http://a"}
    empty = load("", name="f", environ={}, flags=flags)
    text = json.dumps({name: _without_nulls(value) for name, value in written.items()})
    assert empty == load(text, name="f", environ={}, flags=flags)


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(below) for key, below in value.items() if below is not None}
    return value


def test_a_key_is_found_by_its_path() -> None:
    """
    Indices of lists are passed over; a path that leads nowhere finds nothing.
    """
    found = find(("routes", 3, "limit", "per_client", "rate"))
    assert found is not None
    assert found.required
    assert None is find(("routes", 3, "nothing", "below"))
