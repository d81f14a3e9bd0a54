"""
Why a TLS connection came to nothing, in words that say what to do.

    the API's certificate                     then
    is signed by nobody that we trust         name its authority in `upstream.tls.ca`
    is for another name                       correct the endpoint, or set `upstream.tls.server_name`
    has expired, or is not valid yet          renew it there; compare the clocks

    the API                                   then
    speaks plain HTTP at that port            write `http://`
    refuses our certificate, or wants one     set `upstream.tls.certificate` and `key`
    speaks only versions before TLS 1.2       bring it up to date

Numbers are those of OpenSSL's X509_verify_cert_error_string(3), reasons those of its ERR_reason_error_string(3).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNTRUSTED: Final = frozenset((2, 18, 19, 20, 21, 24, 27))
_OTHER_NAME: Final = frozenset((62, 64))
_TRUST: Final = "name the PEM file of its authority in upstream.tls.ca"
_NAME: Final = "correct upstream.endpoints, or set upstream.tls.server_name to a name in it"
_OURS: Final = "set upstream.tls.certificate and upstream.tls.key to ones that it accepts"
_OLD: Final = ("UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION", "ALERT_PROTOCOL_VERSION")
_REFUSES_OURS: Final = ("CERTIFICATE_REQUIRED", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE", "ALERT_HANDSHAKE_FAILURE")  # fmt: skip


Complain = Callable[[str, str], None]
"""Is told what is wrong: the event, the same each time, and the problem in words."""


def unheard(event: str, problem: str) -> None:
    """Complain to nobody."""


class NotTlsError(OSError):
    """
    The peer does not speak TLS.

    Attributes:
        text: What it sent begins with a capital letter, as HTTP does.
    """

    def __init__(self, first: int) -> None:
        super().__init__("it does not speak TLS")
        self.text = ord("A") <= first <= ord("Z")


class UpstreamTlsError(OSError):
    """The API could be reached, but no TLS connection came of it; the message says why, and what to do."""


def words(error: Exception) -> str:
    """Return what *error* says, without its source line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or type(error).__name__


def of_upstream(error: Exception) -> UpstreamTlsError:
    """Return *error* of a handshake with the API, with its remedy."""
    return UpstreamTlsError(_of_upstream(error))


def _of_upstream(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be verified ({error.verify_message}): {_remedy(error.verify_code)}"
    if isinstance(error, NotTlsError):
        return "it does not speak TLS: write http:// in upstream.endpoints, or another port"
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if any(word in reason for word in _OLD):
        return f"it speaks no TLS that is new enough ({words(error)}): bring it to TLS 1.2 or 1.3"
    if any(word in reason for word in _REFUSES_OURS):
        return f"it refuses the handshake ({words(error)}): {_OURS}"
    return f"TLS failed ({words(error)}): see its log"


def _remedy(code: int) -> str:
    if code in _OTHER_NAME:
        return _NAME
    if code == _EXPIRED:
        return "renew it there"
    if code == _NOT_YET_VALID:
        return "compare the clocks of both machines"
    return _TRUST if code in _UNTRUSTED else "replace it there"
