"""Hosts and targets: what every server reads alike passes, all else is refused with words."""

from __future__ import annotations

import pytest

from sidecar.proxy.target import MAX_HOST_BYTES, Target, read_target, valid_host


@pytest.mark.parametrize(
    "host",
    [
        "a", "localhost:80", "foo-bar.example.com", "foo_bar", "example.com.", "a:", "10.0.0.1", "10.0.0.1:8080", "[::1]", "[4711::abcd]:8000",
        "[::ffff:10.0.0.1]", "0.0.0.0=5000", "1.2.3.4.example",
    ],
)  # fmt: skip
def test_one_host_with_an_optional_port_is_valid(host: str) -> None:
    """reg-name, IPv4 and bracketed IPv6 pass, with and without a port."""
    assert valid_host(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        "", ":80", "a b", "a,b", "a, a", "u@a", "u:p@a", "a:b", "a:80:80", "a::80", "a:65536", "a:99999", "a/b", "a?b", "a#b", "a\\b", "a%20b", "%61",
        "[::1", "::1", "[::1]x", "[::1::2]", "[1.2.3.4]", "[fe80::1%eth0]", "[v1.x]", "127.01.0.1", "0x7f.1", "017700000001", "1.2.3", "256.1.1.1",
        "1.2.3.4.", "a.0x1", "a\t", "\xe9", "a\x00", "a\r", "a:٣",
    ],
)  # fmt: skip
def test_everything_else_is_no_host(host: str) -> None:
    """Lists, userinfo, bad ports, encodings, odd numbers and bytes beyond ASCII are refused."""
    assert not valid_host(host.encode())


def test_a_long_host_is_refused_before_it_is_remembered() -> None:
    """The cache of hosts holds short keys only."""
    assert valid_host(b"a" * MAX_HOST_BYTES)
    assert not valid_host(b"a" * (MAX_HOST_BYTES + 1))


@pytest.mark.parametrize(
    ("target", "path", "forwarded"),
    [
        (b"/", "/", b"/"),
        (b"/a/b?c=d", "/a/b", b"/a/b?c=d"),
        (b"/a?", "/a", b"/a?"),
        (b"/a?b?c", "/a", b"/a?b?c"),
        (b"/%61%2D%7e", "/a-~", b"/a-~"),
        (b"/%2fa", "/%2Fa", b"/%2Fa"),
        (b"/a%20b%c3%a9", "/a%20b%C3%A9", b"/a%20b%C3%A9"),
        (b"/a/.b/..c/d./e..", "/a/.b/..c/d./e..", b"/a/.b/..c/d./e.."),
        (b"/...", "/...", b"/..."),
        (b"/%252e%252e/x", "/%252e%252e/x", b"/%252e%252e/x"),
        (b"/a:b@c!$&'()*+,;=", "/a:b@c!$&'()*+,;=", b"/a:b@c!$&'()*+,;="),
        (b"/s?page[number]=1&q={a|b}^`\\", "/s", b"/s?page[number]=1&q={a|b}^`\\"),
        (b"/s?../..%2e;//", "/s", b"/s?../..%2e;//"),
    ],
)
def test_origin_form(target: bytes, path: str, forwarded: bytes) -> None:
    """Unreserved characters are decoded, hex becomes upper case, the query stays; path and forwarded agree."""
    read = read_target("GET", target)
    assert isinstance(read, Target)
    assert (read.path, read.forwarded) == (path, forwarded)


@pytest.mark.parametrize(
    "target",
    [
        b"/a b", b"/\x00", b"/\x7f", b"/\xc3\xa9", b"/a#b", b"/a?b#c", b"/a\\b", b'/"', b"/<", b"/a|b", b"/a^", b"/[a]", b"/{a}", b"/%", b"/%1",
        b"/%zz", b"/%+1", b"/?%", b"/?%0g", b'/?"', b"/?<", b"/%00", b"/%0d%0a", b"/%7F", b"/%1f", b"a", b"", b"?x", b"*a", b"example.com:80",
        b"https://a/", b"ftp://a/", b"http:/a", b"http//a",
    ],
)  # fmt: skip
def test_forbidden_targets(target: bytes) -> None:
    """Bytes and encodings that RFC 3986 does not allow there, controls and unknown forms are refused."""
    assert isinstance(read_target("GET", target), str)


@pytest.mark.parametrize(
    "path",
    [
        b"/.", b"/..", b"/a/../b", b"/a/./b", b"/a/..", b"/a/%2e%2e/b", b"/%2E./b", b"/a/..;/b", b"/a/..;x=1/b", b"/a/.;/b", b"/a%2f..%2fb",
        b"/a/..%5Cb", b"/a%5c..%5cb", b"/..%2f", b"//../a",
    ],
)  # fmt: skip
def test_dot_segments_are_refused_however_they_are_written(path: bytes) -> None:
    """Plain, encoded, or hidden behind an encoded slash or a path parameter."""
    assert isinstance(read_target("GET", path), str)


def test_absolute_form() -> None:
    """Only http; the authority is told, an empty path is /, a query may follow the authority at once."""
    assert read_target("GET", b"http://a:1/b?c") == Target("/b", b"/b?c", b"a:1")
    assert read_target("GET", b"HTTP://a") == Target("/", b"/", b"a")
    assert read_target("GET", b"http://a?b") == Target("/", b"/?b", b"a")
    assert read_target("GET", b"http://u:p@a/b") == Target("/b", b"/b", b"a", userinfo=True)
    assert isinstance(read_target("GET", b"http://a/../b"), str)


def test_asterisk_form_is_for_options_only() -> None:
    """Also as an absolute-form without path (RFC 9112, section 3.2.4)."""
    assert read_target("OPTIONS", b"*") == Target("*", b"*")
    assert read_target("OPTIONS", b"http://a") == Target("*", b"*", b"a")
    assert read_target("OPTIONS", b"http://a/") == Target("/", b"/", b"a")
    assert isinstance(read_target("GET", b"*"), str)


@pytest.mark.parametrize(
    ("path", "readings"),
    [
        (b"/a/b", set()),
        (b"/a%20b", set()),
        (b"//a", {"/a"}),
        (b"/a;x/b", {"/a/b"}),
        (b"/a%2Fb", {"/a/b"}),
        (b"/a%5cb", {"/a/b"}),
        (b"/a%2F%2fb;x", {"/a%2F%2Fb", "/a//b;x", "/a//b", "/a/b;x", "/a/b"}),
    ],
)
def test_readings_name_what_known_servers_would_see(path: bytes, readings: set[str]) -> None:
    """Servers that merge slashes, drop parameters or decode slashes, in every combination."""
    read = read_target("GET", path)
    assert isinstance(read, Target)
    assert set(read.readings) == readings
