"""
The verdict on one case, from the bytes that the proxy emitted on both sides.

Theory.   A proxy is *unsafe* on a case when somebody could be deceived by it: what it sent up cannot be read in exactly one
          way, a request went up that nobody sent, an answer reached the wrong request, or a broken answer looks whole. It is *strict*
          when it also did what the case's kind asks for. h11 re-reads every byte, and a small grammar of our own is the second
          opinion; neither shares code with the proxy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11

from tests.conformance.cases import Case

_HEAD = re.compile(
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ (?:/[!$-;=?-Z\[-~]*|\*) HTTP/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9a-z-]+: ?[\t\x20-\x7e\x80-\xff]*\r\n)+\r\n"
)
_HOP_BY_HOP = {b"connection", b"keep-alive", b"upgrade", b"te", b"trailer", b"transfer-encoding", b"content-length", b"host", b"expect"}  # fmt: skip
CANARY = b"/canary-"
BARRIER = b"/barrier-"


@dataclass(frozen=True, slots=True)
class Message:
    """A request as h11 reads it."""

    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A final response as h11 reads it; `whole` is false when it was visibly cut."""

    status: int
    body: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What one case caused: bytes to the client, whether it saw the end, bytes up by connection."""

    client: bytes
    closed: bool
    up: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Safe, strict, and why not."""

    case: Case
    safe: bool
    strict: bool
    why: str


class UnreadableError(Exception):
    """Bytes that h11 or the grammar refuses."""


def requests(raw: bytes) -> tuple[list[Message], bool]:
    """
    Read requests; return them and whether bytes of an incomplete one follow.

    Raises:
        UnreadableError: when they are no unambiguous requests.
    """
    found: list[Message] = []
    while raw:
        message, raw = _request(raw)
        if message is None:
            return found, True
        found.append(message)
    return found, False


def _request(raw: bytes) -> tuple[Message | None, bytes]:
    """Read one request and what follows it; None while it is incomplete."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(raw)
    body = b""
    try:
        head = server.next_event()
        if not isinstance(head, h11.Request):
            return None, raw
        while not isinstance(part := server.next_event(), h11.EndOfMessage):
            if not isinstance(part, h11.Data):
                return None, raw
            body += bytes(part.data)
    except h11.RemoteProtocolError as error:
        raise UnreadableError(str(error)) from error
    return Message(head.method, head.target, tuple(head.headers), body), server.trailing_data[0]


def answers(raw: bytes, methods: list[bytes]) -> list[Answer]:
    """
    Read the responses to requests of these methods (GET beyond them); *raw* ends where the connection did.

    Raises:
        UnreadableError: when they are no responses.
    """
    found: list[Answer] = []
    while raw:
        method = methods[len(found)] if len(found) < len(methods) else b"GET"
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target=b"/", headers=[("host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(raw)
        status, body, ended = 0, b"", False
        try:
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    if ended:
                        return [*found, Answer(status, body, whole=False)]
                    client.receive_data(b"")
                    ended = True
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
        except h11.RemoteProtocolError as error:
            if ended:  # the connection ended within a message: the client sees it cut
                return [*found, Answer(status, body, whole=False)]
            raise UnreadableError(str(error)) from error
        found.append(Answer(status, body, whole=True))
        raw = client.trailing_data[0]
    return found


def judge_request(case: Case, seen: Seen) -> Verdict:
    """Judge a case that a client sent."""
    try:
        messages, partial, problem = _sent_up(seen.up)
    except UnreadableError as error:
        return Verdict(case, safe=False, strict=False, why=f"went up unreadable: {error}")
    own = [message for message in messages if not message.target.startswith(CANARY)]
    try:
        received = answers(seen.client, [message.method for message in own])
    except UnreadableError as error:
        return Verdict(case, safe=False, strict=False, why=f"the client got nonsense: {error}")
    problem = problem or _pairing(messages, received, seen) or _multiplied(case, own)
    if problem:
        return Verdict(case, safe=False, strict=False, why=problem)
    why = _strictness(case, own, received, partial=partial)
    return Verdict(case, safe=True, strict=not why, why=why)


def _sent_up(up: tuple[bytes, ...]) -> tuple[list[Message], bool, str]:
    """Read what went up: the requests with the canary last, whether a part of another one went up, and what is wrong."""
    messages: list[Message] = []
    partial = False
    for raw in up:
        found, more = requests(raw)
        partial = partial or more
        messages += [message for message in found if not message.target.startswith(BARRIER)]
        for message in found:
            if message.target.startswith((CANARY, BARRIER)) and message.body:
                return messages, partial, "a canary or barrier has swallowed bytes"
        at = 0
        for message in found:  # each head by our own grammar, too
            head = _HEAD.match(raw, at)
            if head is None:
                raise UnreadableError(f"no strict head: {raw[at : at + 80]!r}")
            at = head.end() + len(message.body)
            if any(name == b"transfer-encoding" for name, _ in message.fields):
                break  # chunks stand between: the next head's place is h11's word alone
    canaries = [message for message in messages if message.target.startswith(CANARY)]
    # the canary comes last: it is never before a request of the case
    ordered = [message for message in messages if message not in canaries] + canaries
    return ordered, partial, "a canary went up twice" if len(canaries) > 1 else ""


def _pairing(messages: list[Message], received: list[Answer], seen: Seen) -> str:
    """Check that each forwarded request has its own answer, and that a refusal is the last word."""
    good = [answer for answer in received if answer.status == 200 and answer.whole]
    if len(good) > len(messages):
        return f"{len(good)} answers for {len(messages)} requests"
    for message, answer in zip(messages, good, strict=False):
        if message.method != b"HEAD" and answer.body != b"<" + message.target + b">":
            return f"{message.target!r} was answered with {answer.body!r}"
    refused = [index for index, answer in enumerate(received) if answer.status >= 400]
    if refused and (refused != [len(received) - 1] or not seen.closed):
        return "a refusal was not the connection's last answer"
    canary = any(answer.body.startswith(b"<" + CANARY) for answer in good)
    return "" if canary or seen.closed else "the canary was neither answered nor the connection closed"


def _strictness(case: Case, own: list[Message], received: list[Answer], *, partial: bool) -> str:
    statuses = [answer.status for answer in received]
    match case.kind:
        case "reject":
            if partial:
                return "a part of it went up"
            return f"was forwarded: {own[0].method!r} {own[0].target!r}" if own else ""
        case "accept":
            if len(own) != (case.count or 1):
                return f"{len(own)} of {case.count} were forwarded; answers {statuses}"
            return _exact(case, own)
        case _:
            return ""


def _multiplied(case: Case, own: list[Message]) -> str:
    """Check that nothing went up that h11 does not read in what was sent, the canary behind it."""
    sent = _readable(case.raw + b"GET " + CANARY + b"0 HTTP/1.1\r\nHost: canary\r\n\r\n")
    expected = max(1, sum(not message.target.startswith(CANARY) for message in sent))
    return f"{len(own)} requests were forwarded where h11 reads {expected}" if len(own) > expected else ""


def _exact(case: Case, own: list[Message]) -> str:
    """Compare what went up with h11's reading of what was sent, where h11 reads it."""
    for sent, message in zip(_readable(case.raw), own, strict=False):
        if (sent.method, sent.body) != (message.method, message.body):
            return f"sent {sent.method!r} {sent.body!r}, forwarded {message.method!r} {message.body!r}"
        if sent.target.startswith(b"/") and sent.target != message.target:
            return f"sent {sent.target!r}, forwarded {message.target!r}"
        lost = [pair for pair in sent.fields if pair[0] not in _HOP_BY_HOP and pair not in message.fields]
        if lost:
            return f"lost {lost}"
    return ""


def _readable(raw: bytes) -> list[Message]:
    """Return the requests that h11 reads at the beginning of what a client sent."""
    found: list[Message] = []
    try:
        while (raw := raw.removeprefix(b"\r\n")) and (read := _request(raw))[0] is not None:
            message, raw = read
            assert message is not None
            found.append(message)
    except UnreadableError:
        pass
    return found


def judge_response(case: Case, seen: Seen) -> Verdict:
    """Judge a case that the upstream sent in answer to a GET: clean, or 502, or visibly cut; the canary unharmed."""
    try:
        received = answers(seen.client, [b"GET", b"GET"])
    except UnreadableError as error:
        return Verdict(case, safe=False, strict=False, why=f"the client got nonsense: {error}")
    if not received:
        return Verdict(case, safe=seen.closed, strict=seen.closed, why="" if seen.closed else "no answer at all")
    first, rest = received[0], received[1:]
    if any(not answer.body.startswith(b"<" + CANARY) for answer in rest if answer.status == 200) or len(rest) > 1:
        return Verdict(case, safe=False, strict=False, why=f"the canary was answered with {rest}")
    if not rest and not seen.closed:
        return Verdict(case, safe=False, strict=False, why="the canary was neither answered nor the connection closed")
    if first.status >= 500 and not case.raw.startswith(b"HTTP/1.1 5"):
        why = "" if first.status == 502 or not first.whole else f"answered with {first.status}"
        return Verdict(case, safe=True, strict=not why, why=why)
    if case.kind == "reject" and first.whole and (problem := _as_h11_reads(case, first)):
        return Verdict(case, safe=True, strict=False, why=problem)
    return Verdict(case, safe=True, strict=True, why="")


def _as_h11_reads(case: Case, first: Answer) -> str:
    """A case that the suite refuses may be passed on cleanly when h11 reads the same answer at its beginning."""
    try:
        same = answers(case.raw, [b"GET"])[:1]
    except UnreadableError:
        same = []
    return "" if same and same[0].body == first.body else f"passed on as {first.status} {first.body[:40]!r}"
