"""The path that a route was chosen by is the path that the API gets, whatever a client writes; ambiguity is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.client import Client
from tests.support.leaks import leakless, warmed
from tests.support.raw import speak
from tests.support.upstream import Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"]}}
ratelimit_headers: false
routes:
  - {{name: admin, match: {{path: /admin/**}}, limit: {{rate: 0.001/s, burst: 1}}}}
  - {{name: open, match: {{path: /open/**}}}}
  - {{name: default, match: {{path: /**}}}}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def worker(upstream: Upstream) -> Iterator[Worker]:
    with running_worker(CONFIG.format(url=upstream.url)) as made:
        with Client(made.address) as client:
            assert client.ask("GET", "/admin/").status == 200  # from now on /admin/** is refused by its limit
        yield made


@pytest.fixture(scope="module")
def rest(worker: Worker, upstream: Upstream) -> tuple[int, int]:
    return warmed(worker, upstream)


@pytest.fixture(autouse=True)
def _nothing_left(worker: Worker, upstream: Upstream, rest: tuple[int, int]) -> Iterator[None]:
    upstream.use(echo)
    with leakless(worker, upstream, rest):
        yield


SEPARATORS = ("/", "//", "/./", "%2f", "%2F", "%5c", "\\", "/;/", "/;a=b/", ";/", "/%2e/", "/.;/", "%252f")
WORDS = ("admin", "%61dmin", "adm%69n", "ADMIN", "admin;x", ";admin", "admin.", "%2561dmin")
DETOURS = (
    "",
    "open/../",
    "open/%2e%2e/",
    "open/.%2E/",
    "open/..;/",
    "open%2f..%2f",
    "open\\..\\",
    "./",
    "//",
    "open/x/../../",
)
TARGETS = sorted(
    {f"/{detour}{word}{separator}x" for detour, word, separator in itertools.product(DETOURS, WORDS, SEPARATORS)}
)


def read_as(path: str) -> set[str]:
    """Return what lenient servers make of a path: decoded once, dots resolved, slashes merged, parameters dropped, in any order."""
    from urllib.parse import unquote

    readings = {path}
    for _ in range(4):
        for text in tuple(readings):
            once = unquote(text, errors="replace") if "%25" not in text else text
            readings |= {
                once,
                once.replace("\\", "/"),
                "/".join(part.partition(";")[0] for part in text.split("/")),
                _merged(text),
                _resolved(text),
            }
    return readings


def _merged(path: str) -> str:
    while "//" in path:
        path = path.replace("//", "/")
    return path


def _resolved(path: str) -> str:
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            kept = kept[:-1] or [""]
        elif part != ".":
            kept.append(part)
    return "/".join(kept)


def test_no_spelling_gets_around_a_route(worker: Worker, upstream: Upstream) -> None:
    """
    Of a thousand spellings none reaches the API that a lenient server would read as a path below /admin/, for which the limit
    refuses everything; what passes arrives as it was matched.
    """
    passed = []
    for target in TARGETS:
        seen = speak(worker.address, [f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()])
        assert seen.statuses in ([200], [400], [429]), (target, seen)
        if seen.statuses == [200]:
            passed.append((target, upstream.next_request().line.split(" ")[1]))
        else:
            assert upstream.seen.empty(), target
    assert passed, "everything was refused: the test shows nothing"
    around = [(target, got) for target, got in passed if any(reading.startswith("/admin/") for reading in read_as(got))]
    assert around == []


@pytest.mark.parametrize(
    ("sent", "forwarded"),
    [
        ("/open/%61%2D%7e", "/open/a-~"), ("/open/%c3%a9", "/open/%C3%A9"), ("/open/a//b", "/open/a//b"), ("/open/a;v=1/b", "/open/a;v=1/b"),
        ("/open/a%2fb", "/open/a%2Fb"), ("/open/?q=%2e%2e/../;//", "/open/?q=%2e%2e/../;//"), ("/open/%3Fq", "/open/%3Fq"), ("/open/a+b", "/open/a+b"),
        ("/open/a%20b", "/open/a%20b"), ("/open/...", "/open/..."), ("/open/.a", "/open/.a"), ("/", "/"), ("/?a", "/?a"),
    ],
)  # fmt: skip
def test_what_is_alike_for_every_server_is_normalised_and_nothing_else(
    worker: Worker, upstream: Upstream, sent: str, forwarded: str
) -> None:
    """
    Unreserved characters are decoded and hex digits are capitals; slashes, parameters, reserved characters and the query stay.
    """
    with Client(worker.address) as client:
        assert client.ask("GET", sent).status == 200
    assert upstream.next_request().line == f"GET {forwarded} HTTP/1.1"


@pytest.mark.parametrize(
    "path",
    [
        "/open/../x",
        "/open/./x",
        "/open/%2e%2E/x",
        "/..",
        "/.",
        "/open/.%2e",
        "/open/..;a/x",
        "/a%2f..%2fb",
        "/a%5c..%5cb",
        "/a/..%2fb",
    ],
)
def test_dot_segments_are_refused(worker: Worker, upstream: Upstream, path: str) -> None:
    """
    Clients resolve dot segments before they send; what still has one is refused, however it is hidden.
    """
    with Client(worker.address) as client:
        assert client.ask("GET", path).status == 400
    assert upstream.seen.empty()


@pytest.mark.parametrize(
    "path", ["/open%2f..", "//admin/x", "/;x/admin/x", "/open/..%5cadmin", "/%2fadmin/x", "/admin;x/x", "/admin%2fx"]
)
def test_a_path_of_two_routes_is_refused(worker: Worker, upstream: Upstream, path: str) -> None:
    """
    Where servers disagree on which route's path it is, nobody gets it.
    """
    with Client(worker.address) as client:
        assert client.ask("GET", path).status in (400, 429)
    assert upstream.seen.empty()
