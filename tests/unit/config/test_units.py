"""Quantities: one spelling each, read exactly, refused with what to type instead."""

from __future__ import annotations

import pytest

from sidecar.config import units
from sidecar.config.policies import Address, Endpoint
from sidecar.config.units import UnitError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("10s", 10.0), ("5m", 300.0), ("2h", 7200.0), ("1d", 86400.0), ("0.1s", 0.1), ("0s", 0.0)],
)
def test_a_duration_is_one_number_and_one_unit(text: str, seconds: float) -> None:
    """
    Each documented spelling of a duration gives its seconds exactly.
    """
    assert seconds == units.parse_duration(text)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (30, "write 30s for a duration"),
        ("30", "write 30s for a duration"),
        ("30 s", "write 30s"),
        ("30sec", "write 30s"),
        ("5min", "write 5m"),
        ("soon", "write one number and one unit, as 250ms, 10s, 5m, 2h or 1d"),
        ("-1s", "write one number and one unit, as 250ms, 10s, 5m, 2h or 1d"),
        ("1h30m", "write one number and one unit, as 250ms, 10s, 5m, 2h or 1d"),
        (True, "write one number and one unit, as 250ms, 10s, 5m, 2h or 1d"),
        ("٣s", "write one number and one unit, as 250ms, 10s, 5m, 2h or 1d"),
    ],
)
def test_a_wrong_duration_says_what_to_write(value: object, hint: str) -> None:
    """
    A duration without unit or with a foreign unit is refused with the spelling that was probably meant.
    """
    with pytest.raises(UnitError) as refused:
        units.parse_duration(value)
    assert hint == refused.value.hint


@pytest.mark.parametrize(("text", "per_s"), [("100/s", 100.0), ("600/m", 10.0), ("36000/h", 10.0), ("0.5/s", 0.5)])
def test_a_rate_is_a_number_per_time(text: str, per_s: float) -> None:
    """
    Each documented spelling of a rate gives its events per second.
    """
    assert per_s == units.parse_rate(text)


@pytest.mark.parametrize(
    ("value", "hint"), [(100, "write 100/s for a rate"), ("100rps", "write 100/s"), ("5/sec", "write 5/s")]
)
def test_a_wrong_rate_says_what_to_write(value: object, hint: str) -> None:
    """
    A rate without its time is refused with the spelling that was probably meant.
    """
    with pytest.raises(UnitError) as refused:
        units.parse_rate(value)
    assert hint == refused.value.hint


def test_sizes_are_binary_and_whole() -> None:
    """
    A size is a whole number of bytes in binary units; decimal units are refused with the binary one.
    """
    assert [units.parse_size(text) for text in ("512B", "64KiB", "10MiB", "1.5KiB")] == [512, 65536, 10 * 1024**2, 1536]
    with pytest.raises(UnitError, match="write 64KiB"):
        units.parse_size("64KB")
    with pytest.raises(UnitError, match="whole number of bytes"):
        units.parse_size("0.3B")


def test_ratios_are_percent_or_a_fraction() -> None:
    """
    A ratio is `50%` or `0.5`; a bare 50 is refused, since it could only mean 50%.
    """
    assert [units.parse_ratio(value) for value in ("50%", "0.5", 1, 0)] == [0.5, 0.5, 1.0, 0.0]
    with pytest.raises(UnitError, match="write 50%"):
        units.parse_ratio(50)
    with pytest.raises(UnitError, match="between 0% and 100%"):
        units.parse_ratio("150%")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("[::1]:0", Address("::1", 0)),
        ("Localhost:80", Address("localhost", 80)),
        ("unix:/run/a.sock", Address("", 0, "/run/a.sock")),
    ],
)
def test_an_address_is_host_and_port_or_a_socket(text: str, address: Address) -> None:
    """
    Each documented spelling of a listener's address is read.
    """
    assert address == units.parse_address(text)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (8080, "write 127.0.0.1:8080, with the host"),
        (":8080", "write 0.0.0.0:8080, as 127.0.0.1:8080 or [::1]:8080"),
        ("::1:8080", "write HOST:PORT or [IPV6]:PORT, as 127.0.0.1:8080 or [::1]:8080"),
        ("127.0.0.1:99999", "a port is a number from 0 to 65535"),
        ("300.1.1.1:80", "write api.internal, 127.0.0.1 or [::1]"),
        ("/run/a.sock", "write unix: and an absolute path"),
        ("unix:/" + "a" * 107, "use at most 107 bytes"),
    ],
)
def test_a_wrong_address_says_what_to_write(value: object, hint: str) -> None:
    """
    A port alone, a bare IPv6 address, an impossible port and a mistyped IPv4 address are each refused with the remedy.
    """
    with pytest.raises(UnitError) as refused:
        units.parse_address(value)
    assert hint == refused.value.hint


def test_an_endpoint_is_http_host_and_port() -> None:
    """
    An endpoint is `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:/PATH`; paths and credentials are refused.
    """
    assert Endpoint("api.internal", 80) == units.parse_endpoint("http://api.internal/")
    assert Endpoint("::1", 9000) == units.parse_endpoint("http://[::1]:9000")
    assert Endpoint("api.internal", 443, tls=True) == units.parse_endpoint("https://api.internal")
    assert Endpoint("", 0, "/run/a.sock") == units.parse_endpoint("unix:/run/a.sock")
    for wrong in (
        "ftp://api.internal",
        "unix:a.sock",
        "http://u:p@api",
        "http://api/v1",
        "127.0.0.1:9000",
        "http://api:0",
    ):
        with pytest.raises(UnitError):
            units.parse_endpoint(wrong)


def test_no_error_quotes_the_unprintable() -> None:
    """
    An error quotes its input in printable ASCII of bounded length.
    """
    quoted = units.shown("\x1b[31m" + "é" * 500)
    assert quoted.isprintable()
    assert len(quoted) <= 60
