"""Text, environment and flags to policies; every fault at once, each with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.config.load import ConfigErrors, keep_admin, load, read, static_changes, text_hash
from sidecar.config.policies import Address, Compiled, Endpoint, Match, Token
from sidecar.facts import Mode

ROOT = Path(__file__).parents[3]
UP = "upstream: {endpoints: [http://127.0.0.1:9000]}\n"
HASH = "0123456789abcdef" * 4


def _load(text: str, environ: Mapping[str, str] | None = None, flags: Mapping[str, str] | None = None) -> Compiled:
    return load(text, name="f.yaml", environ=environ or {}, flags=flags or {})


def _errors(text: str, environ: Mapping[str, str] | None = None, flags: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigErrors) as refused:
        _load(text, environ, flags)
    return [str(error) for error in refused.value.errors]


def test_an_upstream_flag_is_enough() -> None:
    """
    Without any file, one flag makes a config: every default, and one route that takes everything.
    """
    compiled = _load("", flags={"--upstream": "http://127.0.0.1:3000"})
    assert (Endpoint("127.0.0.1", 3000),) == compiled.proxy.upstream.endpoints
    assert [("default", Match("/**"))] == [(route.name, route.match) for route in compiled.proxy.routes]
    assert list(compiled.guard.routes) == ["default"]
    assert Address("0.0.0.0", 8080) == compiled.static.listen


def test_no_upstream_anywhere_says_how_to_give_one() -> None:
    """
    A config that leads nowhere is refused with both remedies.
    """
    remedy = "add `upstream: {endpoints: [http://127.0.0.1:9000]}`, or start with --upstream http://HOST:PORT"
    assert [f"f.yaml: upstream.endpoints: no upstream is given ({remedy})"] == _errors("")
    assert [f"f.yaml:1:23: upstream.endpoints: no upstream is given ({remedy})"] == _errors("upstream: {endpoints: []}")


def test_flag_beats_environment_beats_file_beats_default() -> None:
    """
    The same key from four places: the flag wins, then the variable, then the file.
    """
    text, environ, flags = UP + "workers: 2\n", {"SIDECAR__WORKERS": "3"}, {"--workers": "4"}
    found = [_load(UP), _load(text), _load(text, environ), _load(text, environ, flags)]
    assert [compiled.static.workers for compiled in found] == [1, 2, 3, 4]


def test_environment_reaches_sections_lists_and_whole_values() -> None:
    """
    Two underscores go one step down, a number is an index, and a whole list is YAML in flow style.
    """
    environ = {
        "SIDECAR__UPSTREAM__CONNECT_TIMEOUT": "2s",
        "SIDECAR__UPSTREAM__ENDPOINTS__1": "http://127.0.0.2:9000",
        "SIDECAR__TRUST__PROXIES": "[10.0.0.0/8, 192.0.2.1]",
        "SIDECAR__ROUTES": "[{name: a, match: {path: /a}}]",
        "SIDECAR__ROUTES__0__LIMIT__RATE": "5/s",
        "SIDECAR_TOKEN": "not ours",
        "HOME": "/",
    }
    compiled = _load(UP, environ)
    assert compiled.proxy.upstream.connect_timeout_s == 2.0
    assert [endpoint.host for endpoint in compiled.proxy.upstream.endpoints] == ["127.0.0.1", "127.0.0.2"]
    assert compiled.proxy.trusted == ("10.0.0.0/8", "192.0.2.1/32")
    assert compiled.guard.routes["a"].limit.bucket.rate_per_s == 5.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        (
            "SIDECAR__UPSTREAM__CONNECT_TIMEOUT",
            "2",
            "upstream.connect_timeout: 2 has no unit (write 2s for a duration)",
        ),
        ("SIDECAR__UPSTREM__POOL", "2", "upstrem: is not a key here (did you mean upstream?)"),
        (
            "SIDECAR__UPSTREAM__ENDPOINTS",
            "http://a",
            "upstream.endpoints: 'http://a' is not a list (write endpoints: [",
        ),
        (
            "SIDECAR__UPSTREAM__ENDPOINTS__5",
            "x",
            "upstream.endpoints: this is without entry 5: the next free number is 1",
        ),
        ("SIDECAR__UPSTREAM__ENDPOINTS__A", "x", "upstream.endpoints: this is a list: a number must follow"),
        ("SIDECAR__LISTEN__PORT", "80", "listen: {'port': 80} is not an address"),
        ("SIDECAR__LISTEN__0", "80", "listen: [80] is not an address"),
        ("SIDECAR__ROUTES__0__LIMIT__RATE", "5/s", "routes.0.name: is missing"),
        ("SIDECAR__TRUST__PROXIES", "[10.0.0.0/8, ]]", "trust.proxies: this is no YAML"),
        ("SIDECAR__MODE", "", "mode: has no value"),
        ("SIDECAR____X", "1", "this is not followed by a key"),
        ("SIDECAR__" + "A__" * 100 + "A", "1", "this is more than 32 levels deep"),
    ],
)
def test_an_error_of_the_environment_names_the_variable(variable: str, value: str, error: str) -> None:
    """
    A wrong variable is an error that begins with the variable's name and has no line.
    """
    assert [f"{variable}: {error}"] == [each[: len(f"{variable}: {error}")] for each in _errors(UP, {variable: value})]


def test_a_missing_upstream_is_the_files_fault() -> None:
    """
    A variable that sets another key of `upstream` is not blamed for the missing endpoints.
    """
    assert _errors("mode: enforce", {"SIDECAR__UPSTREAM__POOL": "9"})[0].startswith("f.yaml:1:1: upstream.endpoints: ")


def test_an_error_of_a_flag_names_the_flag() -> None:
    """
    A wrong flag is an error that begins with the flag.
    """
    assert _errors("", flags={"--upstream": "nowhere"}) == [
        "--upstream: upstream.endpoints.0: 'nowhere' is not a URL (write http://nowhere)"
    ]


def test_environment_never_changes_an_alias_elsewhere() -> None:
    """
    Two routes share one limit by alias; a variable for the first leaves the second as it was.
    """
    text = (
        UP
        + "routes:\n- {name: a, match: {path: /a}, limit: &l {rate: 1/s}}\n- {name: b, match: {path: /b}, limit: *l}\n"
    )
    guard = _load(text, {"SIDECAR__ROUTES__0__LIMIT__RATE": "9/s"}).guard
    assert [route.limit.bucket.rate_per_s for route in guard.routes.values()] == [9.0, 1.0]  # type: ignore[union-attr]


def test_all_faults_come_at_once_each_at_its_place() -> None:
    """
    The golden text of a thoroughly wrong file: order, places, problems and hints.
    """
    folder = ROOT / "tests" / "golden" / "config"
    found = "\n".join(_errors((folder / "wrong.yaml").read_text(encoding="utf-8")))
    assert (folder / "wrong.txt").read_text(encoding="utf-8") == found + "\n"


def test_a_key_that_stands_twice_hides_no_other_fault() -> None:
    """
    Of two equal keys the first one is looked at, so that its faults and all others are told beside the second one.
    """
    text = "mode: enforced\nroutes:\n  - {name: a, match: {path: /a}, name: b}\nmode: observe\nnonsense: 1\n"
    assert [error.partition(" (")[0] for error in _errors(text)] == [
        "f.yaml:1:1: upstream.endpoints: no upstream is given",
        "f.yaml:1:7: mode: 'enforced' is not one of observe, enforce",
        "f.yaml:3:34: routes.0.name: 'name' stands here a second time",
        "f.yaml:4:1: mode: 'mode' stands here a second time",
        "f.yaml:5:1: nonsense: is not a key here",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[1]", "f.yaml:1:1: a config is keys and values (begin with `listen: 0.0.0.0:8080`)"),
        ("just text", "f.yaml:1:1: a config is keys and values (begin with `listen: 0.0.0.0:8080`)"),
        (UP + "routes: {name: a}", "f.yaml:2:9: routes: this is not a list (write routes: [...])"),
        (UP + "trust: 3", "f.yaml:2:8: trust: 3 is not a section (write keys below it: proxies)"),
        (UP + "drain:", "f.yaml:2:7: drain: has no value (write one, or remove the line to keep the default)"),
        (UP + "trust: {proxies: [~]}", "f.yaml:2:19: trust.proxies.0: has no value (write one, or remove the line to keep the default)"),
        (UP + "routes: [{name: a, limit: ~}]", "f.yaml:2:27: routes.0.limit: has no value (write one, or remove the line to keep the default)"),
        (UP + "routes: [{match: {path: /a}}]", "f.yaml:2:10: routes.0.name: is missing (add `name: checkout`)"),
        (UP + "rate: 5/s", "f.yaml:2:1: rate: is not a key here (rate belongs to limit)"),
        (UP + "idle-timeout: 5s\n", "f.yaml:2:1: idle-timeout: is not a key here (known here: listen, "),
        (UP + "notify: [{type: webhook, secret: x}]", "f.yaml:2:26: notify.0.secret: is not a key here (did you mean secret_file?)"),
    ],
)  # fmt: skip
def test_a_wrong_shape_says_what_stands_where(text: str, error: str) -> None:
    """
    A value where a section or list belongs, an empty key, a missing one and an unknown one each have their sentence.
    """
    assert any(each.startswith(error) for each in _errors(text))


@pytest.mark.parametrize("name", ["sidecar.yaml", "minimal.yaml", *(f"examples/{p.name}" for p in sorted((ROOT / "config/examples").iterdir()))])  # fmt: skip
def test_every_shipped_config_loads(name: str) -> None:
    """
    The annotated file, the minimal one and each example are valid as they stand.
    """
    compiled = _load((ROOT / "config" / name).read_text(encoding="utf-8"))
    assert list(compiled.guard.routes) == [route.name for route in compiled.proxy.routes]


def test_the_annotated_file_says_the_defaults() -> None:
    """
    Where the annotated file repeats a default, it is the product's own: a bare config differs in routes, service,
    receivers and nothing else.
    """
    annotated, bare = _load((ROOT / "config/sidecar.yaml").read_text(encoding="utf-8")), _load(UP)
    assert bare.static == annotated.static
    assert bare.detect == replace(
        annotated.detect, sensitivities={}, slo_error_ratios={}, objectives={}
    )  # these are by route
    assert bare.respond == annotated.respond
    assert bare.drain == annotated.drain
    assert bare.store == annotated.store
    assert bare.proxy.downstream == annotated.proxy.downstream
    assert bare.proxy.upstream == annotated.proxy.upstream


def test_a_compiled_config_equals_its_twin() -> None:
    """
    Two spellings of one meaning compile to equal policies.
    """
    assert _load(UP + "drain: {grace: 30s}") == _load("upstream:\n  endpoints:\n  - http://127.0.0.1:9000/\n")


def test_a_static_change_is_an_error_at_its_place() -> None:
    """
    Each static key that differs gives one error; tokens and live keys give none.
    """
    text = UP + "listen: 127.0.0.1:7000\nworkers: 2\ndrain: {grace: 5s}\n"
    found = static_changes(_load(UP), _load(text), text=text, name="new")
    assert [(error.path, error.line, error.column) for error in found] == [("listen", 2, 9), ("workers", 3, 10)]
    assert found[0].problem == "is static: 0.0.0.0:8080 cannot become 127.0.0.1:7000 while it runs"
    tokens = UP + f"admin: {{tokens: [{{name: a, role: admin, sha256: {HASH}}}]}}\n"
    assert static_changes(_load(UP), _load(tokens)) == ()


def test_the_admin_section_stays_the_files() -> None:
    """
    A version with other tokens and another admin listener runs with the file's.
    """
    version = _load(UP + f"admin: {{listen: '127.0.0.1:1', tokens: [{{name: a, role: admin, sha256: {HASH}}}]}}\n")
    kept = keep_admin(version, _load(UP))
    assert ((), Address("127.0.0.1", 9901)) == (kept.admin.tokens, kept.static.admin)
    assert (Token("a", "admin", HASH),) == version.admin.tokens


def test_a_version_is_known_by_its_exact_bytes() -> None:
    """
    The hash is of the text as written: a space more is another version.
    """
    assert text_hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert text_hash("a: 1") != text_hash("a:  1")


def test_read_needs_no_upstream() -> None:
    """
    A text that gets its upstream from a flag can still be compared and shown.
    """
    assert Mode.OBSERVE is read("mode: observe", name="f").mode
