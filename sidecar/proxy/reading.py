"""
What a client's connection waits for, and what then: the machine that `downstream.py` runs.

Theory
------
A connection is read by one small machine (`Reading`) that knows which bytes it waits for. Requests are served one after
the other: what a client pipelines waits in `_pending`, at most 64 KiB of it, and answers leave in the order of the
requests because there is never a second one under way. While an answer is pending the socket is still read, because
only reading shows that the client left. When it cannot be read (the API does not take the body, or 64 KiB wait),
the kernel is asked twice a second whether the client is still there.

Tables
------
    reading   waits for            bytes arrive            deadline, and what then
    head      the next request     collect, parse, begin   none yet: idle timeout, close; begun: head timeout, 408
    body      the body             decode, pass on         body timeout from the last byte: 408, or cut
    answer    the answer           keep for later          after end of file: the client left
    rest      a refused body       drop                    body timeout: close
    closed    -                    -                       - (`linger.py` has the transport)

    end of file while in   then
    head                   close; a head that had begun is answered 400
    body                   the client left: the request ends
    answer                 the client may have closed one half only: it has 0.5 s, renewed as long as the answer flows
    rest                   close

What can go wrong
-----------------
* A client that pipelines thousands of requests that are all refused: after 16 of them in a row the event loop gets
  its turn, and a client that does not read its answers is not served further. What it sends
  meanwhile waits as behind a pending answer (`_backlog`: whole requests may be in it, so it is searched from its
  beginning), and it has the idle timeout to read.
* A head that comes byte by byte costs a read for each of them: after 32 pieces it is read two hundred times a second at
  most, and what comes meanwhile gathers in the kernel. Who sends whole packets never gets there: 16 KiB are twelve.
* The peer's address is None when the client has already reset the connection; an exception in `connection_made` would
  leak the descriptor. Both end the connection.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from sidecar.reasons import Reason, Refusal

HALF_CLOSED_S: Final = 0.5
LAST_REQUEST_S: Final = 1.0
IN_A_ROW: Final = 16
PIECES: Final = 32
GATHER_S: Final = 0.005

HEAD_CUT: Final = Refusal(Reason.BAD_REQUEST, 0.0, "framing", "the head ends early")
HEAD_LATE: Final = Refusal(Reason.REQUEST_TIMEOUT, 0.0, "head_timeout", "the head did not come in time")
BODY_LATE: Final = Refusal(Reason.REQUEST_TIMEOUT, 0.0, "body_timeout", "no byte of the body came in time")


class Reading(Enum):
    """What the connection waits for."""

    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"
    REST = "rest"
    CLOSED = "closed"
