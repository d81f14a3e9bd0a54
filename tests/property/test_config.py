"""Any text gives policies or `ConfigErrors`; what is valid can be written, hidden and compared without surprise."""

from __future__ import annotations

import re
from collections.abc import Callable

import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st

from sidecar.config import units
from sidecar.config.catalogue import Key, keys
from sidecar.config.diff import diff, touches
from sidecar.config.load import ConfigErrors, load
from sidecar.config.mask import mask
from sidecar.config.policies import Compiled
from sidecar.config.schema import Config
from sidecar.config.sections import Section
from sidecar.config.units import UnitError

FLAGS = {"--upstream": "http://127.0.0.1:3000"}
BOUNDED = settings(max_examples=150, deadline=None)

_words = st.sampled_from([
    "listen", "upstream", "endpoints", "routes", "name", "match", "path", "limit", "rate", "per_client", "breaker",
    "respond", "ramp", "steps", "notify", "type", "admin", "tokens", "sha256", "x", "<<", "", "workers", "detect",
])  # fmt: skip
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["10s", "5/s", "50%", "64KiB", "/a/**", "http://a", "log", "observe", "a" * 64, "auto", "header:x"]),
)  # fmt: skip
_values = st.recursive(
    _scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(_words, below, max_size=4), max_leaves=20
)
_soup = st.text(alphabet="abc:-[]{}&*!|>'\"#%@`, \n\t\r\x00\x85\ufeffé0~?", max_size=60)


def _outcome(text: str, environ: dict[str, str] | None = None) -> Compiled | ConfigErrors:
    try:
        return load(text, name="f", environ=environ or {}, flags=FLAGS)
    except ConfigErrors as refused:
        wrong = refused
    assert wrong.errors
    assert all(error.problem and error.hint and str(error).isprintable() for error in wrong.errors)
    return wrong


@BOUNDED
@given(_soup)
def test_any_text_gives_policies_or_config_errors(text: str) -> None:
    """
    No text makes the loader raise anything else, and each error has its problem, hint and a printable line.
    """
    _outcome(text)
    assert re.search("[0-9a-f]{64}", mask(text)) is None


@BOUNDED
@given(_values)
def test_any_tree_gives_policies_or_config_errors(tree: object) -> None:
    """
    Right words in wrong places and wrong values in right ones are errors, never a crash.
    """
    _outcome(yaml.safe_dump(tree))


@BOUNDED
@given(st.dictionaries(st.lists(_words, max_size=4).map(lambda steps: "SIDECAR__" + "__".join(steps).upper()), st.text(max_size=12)))  # fmt: skip
def test_any_environment_gives_policies_or_config_errors(environ: dict[str, str]) -> None:
    """
    Whatever stands in the environment under the prefix, the loader answers with policies or errors.
    """
    _outcome("routes: [{name: a}]", environ)


def _valid_value(key: Key) -> st.SearchStrategy[object]:
    if key.section is not None:
        one: st.SearchStrategy[object] = _section(key.section)
    else:
        assert key.kind is not None
        found = key.kind.schema.get("examples", key.kind.schema.get("enum"))
        one = st.sampled_from(found) if isinstance(found, list) else st.just(_EXAMPLES.get(key.kind.name, 20))
    return st.lists(one, min_size=0, max_size=2) if key.listed else one


_EXAMPLES = {
    "SHA-256": "ab" * 32, "path": "/some/where", "switch": True, "list of statuses": [500, "502-504"], "integer or auto": 2,
}  # fmt: skip


def _section(section: type[Section]) -> st.SearchStrategy[object]:
    rows = list(keys(section))
    required = {row.name: _valid_value(row) for row in rows if row.required}
    optional = {row.name: _valid_value(row) for row in rows if not row.required}
    return st.fixed_dictionaries(required, optional=optional)


_configs = st.deferred(lambda: _section(Config)).map(lambda tree: yaml.safe_dump(tree, sort_keys=False))


@BOUNDED
@given(_configs, _configs)
def test_a_valid_config_equals_itself_and_survives_its_mask(one: str, other: str) -> None:
    """
    diff(x, x) is empty, a masked text means the same but for hashes, and a diff of any two never fails.
    """
    first = _outcome(one)
    event(type(first).__name__)
    if isinstance(first, Compiled):
        assert diff(one, one, flags=FLAGS) == []
        assert first == load(one, name="other", environ={}, flags=FLAGS)
        assert {"admin.tokens"} >= {
            ".".join(change.path.split(".")[:2]) for change in diff(one, mask(one), flags=FLAGS)
        }
    changes = diff(one, other, flags=FLAGS)
    assert len(changes) == len(diff(other, one, flags=FLAGS))
    assert "ab" * 32 not in repr(changes)
    assert isinstance(touches(changes), frozenset)


@BOUNDED
@given(st.floats(min_value=0.001, max_value=1e7), st.integers(0, 2**40), st.floats(0, 1))
def test_a_quantity_survives_being_written(number: float, size: int, ratio: float) -> None:
    """
    The canonical spelling of a duration, size, rate or ratio is read back as the same value, to the bit.
    """
    number, ratio = round(number, 6), round(ratio, 6)
    assert number == units.parse_duration(units.format_duration(number))
    assert number == units.parse_rate(units.format_rate(number))
    assert size == units.parse_size(units.format_size(size))
    assert ratio == units.parse_ratio(units.format_ratio(ratio))


@BOUNDED
@given(st.one_of(st.text(max_size=30), st.integers(), st.booleans(), st.none(), st.lists(st.integers(), max_size=2)))
def test_no_input_makes_a_quantity_raise_anything_else(value: object) -> None:
    """
    Every parser of a quantity answers with a value or a UnitError.
    """
    parsers = (
        units.parse_duration, units.parse_rate, units.parse_size, units.parse_ratio, units.parse_address, units.parse_endpoint,
    )  # fmt: skip
    assert all(_refused_with_reason(parse, value) for parse in parsers)


def _refused_with_reason(parse: Callable[[object], object], value: object) -> bool:
    try:
        parse(value)
    except UnitError as error:
        return bool(error.problem and error.hint)
    return True
