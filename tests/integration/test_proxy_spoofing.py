"""What the sidecar vouches for cannot be forged: no field that it sets arrives as a client, or the API, wrote it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.client import Client, request
from tests.support.leaks import leakless, warmed
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

EVIL = "203.0.113.66"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OURS = (
    "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-real-ip", "x-forwarded-port", "x-forwarded-server",
    "x-forwarded-prefix", "x-forwarded-ssl", "x-forwarded-scheme", "x-forwarded-client-cert", "x-forwarded", "client-cert",
    "client-cert-chain",
)  # fmt: skip


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def worker(upstream: Upstream) -> Iterator[Worker]:
    with running_worker(f"upstream: {{endpoints: ['{upstream.url}']}}\n") as made:
        yield made


@pytest.fixture(scope="module")
def rest(worker: Worker, upstream: Upstream) -> tuple[int, int]:
    return warmed(worker, upstream)


@pytest.fixture(autouse=True)
def _nothing_left(worker: Worker, upstream: Upstream, rest: tuple[int, int]) -> Iterator[None]:
    upstream.use(echo)
    with leakless(worker, upstream, rest):
        yield


def as_cgi(head: bytes) -> dict[str, list[str]]:
    """Return the fields as an upstream behind CGI or WSGI names them: `-` and `_`, and letters of any case, are one."""
    found: dict[str, list[str]] = {}
    for line in head.decode("latin-1").split("\r\n")[1:-2]:
        name, _, value = line.partition(":")
        found.setdefault(name.strip().upper().replace("-", "_"), []).append(value.strip())
    return found


def seen(worker: Worker, upstream: Upstream, *fields: str) -> dict[str, list[str]]:
    """Return what the API gets of a request with these fields."""
    with Client(worker.address) as client:
        assert client.ask("GET", "/", b"", *fields).status == 200
    return as_cgi(upstream.next_request().head)


SPELLINGS = {
    "plain": "{name}: {value}",
    "capitals": "{upper}: {value}",
    "underscores": "{under}: {value}",
    "mixed": "{mixed}: {value}",
    "twice": "{name}: {value}\r\n{name}: {value}",
    "nominated": "Connection: {name}\r\n{name}: {value}",
    "nominated away": "Connection: close, {name}",
    "empty": "{name}:",
    "spaces": "{name}: \t {value} \t ",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", OURS)
def test_an_untrusted_client_cannot_say_where_it_comes_from(
    worker: Worker, upstream: Upstream, name: str, spelling: str
) -> None:
    """
    However it spells or nominates a forwarding field: the API sees the socket's address, once, and nothing of the client's.
    """
    under = name.replace("-", "_")
    text = SPELLINGS[spelling].format(
        name=name, value=f"for={EVIL}" if name == "forwarded" else EVIL, upper=name.upper(), under=under, mixed=under.replace("_", "-", 1).title()
    )  # fmt: skip
    got = seen(worker, upstream, *text.split("\r\n"))
    assert EVIL not in repr(got)
    assert got["X_FORWARDED_FOR"] == ["127.0.0.1"]
    assert got["X_FORWARDED_PROTO"] == ["http"]
    assert got["X_FORWARDED_HOST"] == ["api.test"]
    assert got["FORWARDED"] == ['for=127.0.0.1;proto=http;host="api.test"']
    assert not {"X_REAL_IP", "X_FORWARDED_PORT", "X_FORWARDED_CLIENT_CERT"} & got.keys()


HOP_BY_HOP = (
    "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eA==", "Proxy-Authenticate: Basic", "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAAQAAP__", "Proxy-Foo: x", "Proxy_Authorization: x", "Keep_Alive: x",
)  # fmt: skip


@pytest.mark.parametrize("field", HOP_BY_HOP)
def test_hop_by_hop_fields_end_here(worker: Worker, upstream: Upstream, field: str) -> None:
    """
    What is between the client and us stays there, also when only CGI would take its name for it.
    """
    got = seen(worker, upstream, field, "Connection: close")
    assert field.partition(":")[0].upper().replace("-", "_") not in got
    assert "CONNECTION" not in got


def test_nominated_fields_end_here_and_ours_cannot_be_nominated_away(worker: Worker, upstream: Upstream) -> None:
    """
    Connection removes the client's own fields only: what we set, Host and framing stay.
    """
    nominated = (
        "X-Own, Host, Content-Length, Via, X-Forwarded-For, Forwarded, Traceparent, Transfer-Encoding, close, X-Absent"
    )
    with Client(worker.address) as client:
        client.send(
            b"POST / HTTP/1.1\r\nHost: api.test\r\nX-Own: 1\r\nX-Kept: 2\r\nContent-Length: 3\r\nConnection: "
            + nominated.encode() + b"\r\n\r\nabc"
        )  # fmt: skip
        assert client.read().body == b"abc"
    got = as_cgi(upstream.next_request().head)
    assert "X_OWN" not in got
    assert (got["HOST"], got["CONTENT_LENGTH"], got["X_KEPT"]) == (["api.test"], ["3"], ["2"])
    assert (got["X_FORWARDED_FOR"], len(got["VIA"]), len(got["TRACEPARENT"])) == (["127.0.0.1"], 1, 1)


@pytest.mark.parametrize(
    ("te", "passed"),
    [
        ("trailers", ["trailers"]),
        ("gzip", None),
        ("gzip, trailers", ["trailers"]),
        ("trailers;q=0.5", None),
        ("chunked", None),
        ("TRAILERS", ["trailers"]),
    ],
)
def test_te_is_trailers_or_nothing(worker: Worker, upstream: Upstream, te: str, passed: list[str] | None) -> None:
    """
    Of TE only `trailers` goes on, nominated by us; any coding in it ends here.
    """
    assert seen(worker, upstream, f"TE: {te}", "Connection: TE").get("TE") == passed


@pytest.mark.parametrize(
    "field",
    [
        "Via: 1.1 evil",
        "Via: 1.1 evil, 1.0 other",
        "traceparent: " + TRACE.replace("00-0", "zz-0"),
        "traceparent: 00-" + "0" * 32 + "-b7ad6b7169203331-01",
    ],
)
def test_via_and_traceparent_are_ours_in_the_end(worker: Worker, upstream: Upstream, field: str) -> None:
    """
    Our own Via stands behind all others; an invalid trace is replaced by a new one.
    """
    got = seen(worker, upstream, field)
    assert got["VIA"][-1].split(",")[-1].strip().startswith("1.1 sidecar-")
    assert len(got["TRACEPARENT"]) == 1
    assert got["TRACEPARENT"][0] not in field
    assert len(got["TRACEPARENT"][0]) == len(TRACE)


def test_a_valid_trace_goes_on_once(worker: Worker, upstream: Upstream) -> None:
    """
    A client's own trace is the API's trace; one that is nominated or doubled is not.
    """
    assert seen(worker, upstream, f"traceparent: {TRACE}", "tracestate: a=b")["TRACEPARENT"] == [TRACE]
    nominated = seen(worker, upstream, f"traceparent: {TRACE}", "Connection: traceparent")["TRACEPARENT"]
    doubled = seen(worker, upstream, f"traceparent: {TRACE}", f"traceparent: {TRACE}")["TRACEPARENT"]
    assert (len(nominated), len(doubled)) == (1, 1)
    assert nominated != [TRACE]


def test_the_consoles_cookie_never_goes_up(worker: Worker, upstream: Upstream) -> None:
    """
    The session of the console is cut out of Cookie wherever it stands, and only that.
    """
    got = seen(
        worker,
        upstream,
        "Cookie: a=1; sidecar_session=secret; b=2",
        "Cookie: sidecar_session=secret",
        "Cookie: c=sidecar_session=3",
    )
    assert "secret" not in repr(got)
    assert got["COOKIE"] == ["a=1; b=2", "c=sidecar_session=3"]


ANSWER_FIELDS = (
    "Connection: X-Hop", "X-Hop: 1", "Keep-Alive: timeout=9", "Proxy-Authenticate: Basic", "Proxy-Connection: close", "Upgrade: h2c", "TE: trailers",
    "Trailer: X",
)  # fmt: skip


def test_hop_by_hop_fields_of_answers_end_here(worker: Worker, upstream: Upstream) -> None:
    """
    What the API says to its next hop does not reach the client; its own fields, Date and Server do.
    """

    def answering(conn: Conn) -> None:
        while conn.read() is not None:
            conn.answer(
                b"ok",
                "200 OK",
                *ANSWER_FIELDS,
                "X-Kept: 1",
                "Server: api",
                "Set-Cookie: a=1",
                "Set-Cookie: b=2",
                "Proxy-Status: other",
            )

    upstream.use(answering)
    with Client(worker.address) as client:
        client.send(request())
        got = as_cgi(client.read_head())
    assert (
        not {"X_HOP", "KEEP_ALIVE", "PROXY_AUTHENTICATE", "PROXY_CONNECTION", "UPGRADE", "TE", "TRAILER", "CONNECTION"}
        & got.keys()
    )
    assert (got["X_KEPT"], got["SERVER"], got["SET_COOKIE"], got["CONTENT_LENGTH"]) == (
        ["1"],
        ["api"],
        ["a=1", "b=2"],
        ["2"],
    )
    assert got["VIA"][-1].startswith("1.1 sidecar-")


@pytest.fixture(scope="module")
def trusting(upstream: Upstream) -> Iterator[Worker]:
    """A worker that believes loopback and 10.0.0.0/8, and limits each client to one request."""
    text = f"""
upstream: {{endpoints: ['{upstream.url}']}}
trust: {{proxies: [127.0.0.0/8, 10.0.0.0/8]}}
explain: full
routes: [{{name: all, match: {{path: /**}}, limit: {{per_client: {{rate: 0.001/s, burst: 1}}}}}}]
"""
    with running_worker(text) as made:
        yield made


def test_a_trusted_peer_is_appended_to(trusting: Worker, upstream: Upstream) -> None:
    """
    The chain of a trusted proxy is kept and our peer stands at its right end, in both fields, whichever it sent.
    """
    got = seen(
        trusting,
        upstream,
        "X-Forwarded-For: 198.51.100.1, 10.1.1.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example",
    )
    assert got["X_FORWARDED_FOR"] == ["198.51.100.1, 10.1.1.1, 127.0.0.1"]
    assert (got["X_FORWARDED_PROTO"], got["X_FORWARDED_HOST"]) == (["https"], ["shop.example"])
    assert got["FORWARDED"][0].startswith("for=198.51.100.1, for=10.1.1.1, for=127.0.0.1")
    got = seen(trusting, upstream, "Forwarded: for=198.51.100.2;proto=https")
    assert got["X_FORWARDED_FOR"] == ["198.51.100.2, 127.0.0.1"]


CHAINS = {
    "the right one counts": ("198.51.100.10, 198.51.100.11", "198.51.100.11"),
    "trusted ones are passed over": ("198.51.100.12, 10.0.0.1, 10.0.0.2", "198.51.100.12"),
    "what a client wrote stands left": ("8.8.8.8, 198.51.100.13, 10.0.0.1", "198.51.100.13"),
    "ipv6 by its /64": ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    "mapped ipv4": ("::ffff:198.51.100.14", "198.51.100.14"),
    "with a port": ("198.51.100.15:4711", "198.51.100.15"),
    "brackets": ("[2001:db8:9::1]:443", "2001:db8:9::/64"),
    "nonsense ends the walk": ("198.51.100.16, nonsense, 10.0.0.3", "10.0.0.3"),
}


@pytest.mark.parametrize("case", CHAINS)
def test_the_client_is_counted_from_the_right(trusting: Worker, upstream: Upstream, case: str) -> None:
    """
    The first address from the right that no trusted proxy has is who is limited: what stands left of it is the client's word.
    """
    chain, expected = CHAINS[case]
    forged = f"192.0.2.7, {chain}"
    with Client(trusting.address) as client:
        assert client.ask("GET", "/", b"", f"X-Forwarded-For: {chain}").status == 200
        again = client.ask("GET", "/", b"", f"X-Forwarded-For: {forged}")
        alone = client.ask("GET", "/", b"", f"X-Forwarded-For: {expected.removesuffix('/64')}")
    assert (again.status, alone.status) == (429, 429)


def test_what_passed_here_before_is_a_loop(worker: Worker, upstream: Upstream) -> None:
    """
    A Via with our own token, alone or in a list, in one field or a second one, is a loop; one that only looks alike is not.
    """
    own = seen(worker, upstream)["VIA"][0].split(" ")[1]
    for fields, status in (
        ([f"Via: 1.1 {own}"], 502), ([f"Via: 1.1 a, 1.1 {own}, 1.1 b"], 502), (["Via: 1.1 a", f"Via: 1.1 {own}"], 502),
        ([f"Via: 1.1 {own.upper()}"], 502), ([f"Via: 1.1 {own}x"], 200), ([f"Via: 1.1 x{own}"], 200),
    ):  # fmt: skip
        with Client(worker.address) as client:
            assert client.ask("GET", "/", b"", *fields).status == status, fields
