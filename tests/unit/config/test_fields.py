"""The kinds of value: what each takes, refuses and writes back."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from sidecar.config import addresses, fields, sections
from sidecar.config.kinds import Kind, choice, count
from sidecar.config.policies import Endpoint
from sidecar.config.units import UnitError
from sidecar.facts import Mode


def _kind(annotated: Any) -> Kind[Any]:
    return get_args(annotated)[1]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "value", "read", "written"),
    [
        (fields.Duration, "1000ms", 1.0, "1s"),
        (fields.DurationOrZero, "0s", 0.0, "0s"),
        (fields.Rate, "600/m", 10.0, "10/s"),
        (fields.Size, "1024KiB", 1024**2, "1MiB"),
        (fields.Ratio, "0.5", 0.5, "50%"),
        (fields.Statuses, [500, "502-504", 503], frozenset({500, 502, 503, 504}), [500, "502-504"]),
        (fields.Ramp, ["1%", "0.5", 1], (0.01, 0.5, 1.0), ["1%", "50%", "100%"]),
        (fields.Workers, "auto", 0, "auto"),
        (fields.Workers, 4, 4, 4),
        (fields.ClientKey, "Header:X-Api-Key", "header:x-api-key", "header:x-api-key"),
        (addresses.Network, "10.0.0.0/8", "10.0.0.0/8", "10.0.0.0/8"),
        (addresses.Host, "API.Example.com", "api.example.com", "api.example.com"),
        (fields.Switch, True, True, True),
        (fields.GlobalMode, "observe", Mode.OBSERVE, "observe"),
        (fields.RoutePath, "/api/*/items/**", "/api/*/items/**", "/api/*/items/**"),
        (addresses.EndpointUrl, "http://a:1", Endpoint("a", 1), "http://a:1"),
        (
            addresses.EndpointUrl,
            {"url": "unix:/run/a.sock", "weight": 3},
            Endpoint("", 0, "/run/a.sock", 3),
            {"url": "unix:/run/a.sock", "weight": 3},
        ),
        (addresses.EndpointUrl, {"url": "http://[::1]"}, Endpoint("::1", 80), "http://[::1]:80"),
        (fields.Protocol, "websocket", "websocket", "websocket"),
        (fields.TargetPath, "/healthz?x=1", "/healthz?x=1", "/healthz?x=1"),
        (addresses.WebhookUrl, "https://a.example/b?c=d", "https://a.example/b?c=d", "https://a.example/b?c=d"),
        (fields.Sha256, "(hidden)", "(hidden)", "(hidden)"),
    ],
)
def test_a_kind_reads_and_writes_back(kind: Any, value: object, read: object, written: object) -> None:
    """
    A kind gives the value of a text, and the value's canonical spelling.
    """
    found = _kind(kind).read(value)
    assert read == found
    assert written == _kind(kind).write(found)


@pytest.mark.parametrize(
    ("kind", "value", "hint"),
    [
        (fields.Duration, "0s", "write 1ms to 366d"),
        (fields.Rate, "0/s", "write 1/h to 1000000000/s"),
        (fields.RatioAboveZero, "0%", "write 0.01% to 100%"),
        (fields.Statuses, [200], "write 400 to 599, or 502-599"),
        (fields.Statuses, [True], "write 400 to 599, or 502-599"),
        (fields.Statuses, "500", "write [500, 502-599]"),
        (fields.Ramp, ["10%", "50%"], "end it with 100%"),
        (fields.Ramp, ["50%", "10%", "100%"], "ascend to 100%"),
        (fields.Ramp, ["0%", "100%"], "ascend to 100%"),
        (fields.Ramp, [], "write them ascending: [5%, 25%, 50%, 100%]"),
        (fields.Workers, 0, "write 1 to 256, or auto for one per core"),
        (fields.ClientKey, "x-api-key", 'write address, or "header:NAME" as "header:x-api-key"'),
        (addresses.Network, "10.0.0.1/8", "its host bits are set: write 10.0.0.0/8"),
        (addresses.Network, 10, "write an address or a CIDR range, as 10.0.0.0/8 or 2001:db8::/32"),
        (addresses.Host, "example.com:80", "write the host alone: routes match on it whatever the port"),
        (fields.Switch, "yes", "write true"),
        (fields.Switch, "off", "write false"),
        (fields.Switch, 1, "write true or false"),
        (fields.GlobalMode, "off", "write observe or enforce"),
        (fields.GlobalMode, "enforced", "did you mean enforce?"),
        (fields.BucketModeWord, "shape", "write off or observe or enforce"),
        (sections.Cost, "dear", "write a number from 1 to 1000000, as 2 or 2.5"),
        (sections.Cost, True, "write a number from 1 to 1000000, as 2 or 2.5"),
        (sections.Cost, "0.5", "write a number from 1 to 1000000"),
        (fields.PriorityWord, "hihg", "did you mean high?"),
        (fields.Name, "Check Out", "use 1 to 64 of a-z, 0-9, _ and -"),
        (fields.Name, 404, 'put it in quotes: "404"'),
        (fields.Name, True, 'put it in quotes: "true"'),
        (fields.Name, ["a"], "use 1 to 64 of a-z, 0-9, _ and -"),
        (fields.Method, "get", "write it in capitals, as GET or POST"),
        (fields.RoutePath, "api", "begin with / and leave out query and spaces"),
        (fields.RoutePath, "/a/../b", "write the path as it looks after resolving it"),
        (fields.RoutePath, "/a*", "* stands for one whole segment: /api/*/items"),
        (fields.RoutePath, "/a/**/b", "** comes last: /api/**"),
        (
            addresses.EndpointUrl,
            {"url": "http://a:1", "wieght": 3},
            "write http://HOST:PORT, or {url: http://HOST:PORT, weight: 2}",
        ),
        (addresses.EndpointUrl, {"weight": 3}, "write http://HOST:PORT, or {url: http://HOST:PORT, weight: 2}"),
        (addresses.EndpointUrl, {"url": "http://a:1", "weight": 0}, "write a number from 1 to 1000"),
        (addresses.EndpointUrl, {"url": "http://a:1", "weight": True}, "write a number from 1 to 1000"),
        (addresses.EndpointUrl, "unix:api.sock", "write unix: and an absolute path"),
        (fields.Protocol, "h2c", "name a protocol like websocket"),
        (fields.Protocol, "WebSocket", "write it in lower case, as websocket"),
        (fields.TargetPath, "healthz", "begin with /, as /healthz"),
        (addresses.WebhookUrl, "ftp://a", "write https://HOST/PATH"),
        (addresses.WebhookUrl, "https://u:p@a/b", "sign with secret_file instead"),
    ],
)
def test_a_kind_refuses_with_what_to_write(kind: Any, value: object, hint: str) -> None:
    """
    What is no such value is refused with the remedy.
    """
    with pytest.raises(UnitError) as refused:
        _kind(kind).read(value)
    assert hint == refused.value.hint


def test_a_wrong_hash_is_never_quoted() -> None:
    """
    The error of a SHA-256 quotes nothing of it: somebody may have put the token itself there.
    """
    with pytest.raises(UnitError) as refused:
        _kind(fields.Sha256).read("the-token-itself")
    assert "the-token-itself" not in str(refused.value)


def test_a_count_is_a_bare_whole_number() -> None:
    """
    A quoted number, a boolean, a list and a number out of range are no count.
    """
    kind = count(1, 10)
    assert kind.read(7) == 7
    for wrong in ("7", True, [7], 0, 11):
        with pytest.raises(UnitError):
            kind.read(wrong)


def test_a_choice_can_leave_words_out() -> None:
    """
    A word that means nothing here is refused although the enum has it.
    """
    with pytest.raises(UnitError, match="is not one of observe, enforce"):
        choice(Mode, without=("off",)).read("off")
