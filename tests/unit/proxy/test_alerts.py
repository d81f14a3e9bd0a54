"""Every way in which TLS to the API fails has words that say what to do."""

from __future__ import annotations

import ssl

import pytest

from sidecar.proxy.alerts import NotTlsError, of_upstream, words


def unverified(code: int, message: str) -> ssl.SSLCertVerificationError:
    made = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    made.verify_code, made.verify_message = code, message
    return made


def failed(reason: str) -> ssl.SSLError:
    made = ssl.SSLError(1, f"[SSL: {reason}] (_ssl.c:1)")
    made.reason = reason
    return made


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (unverified(18, "self-signed certificate"), "(self-signed certificate): name the PEM file of its authority in upstream.tls.ca"),
        (unverified(20, "unable to get local issuer certificate"), "upstream.tls.ca"),
        (unverified(62, "Hostname mismatch"), "set upstream.tls.server_name to a name in it"),
        (unverified(64, "IP address mismatch"), "upstream.tls.server_name"),
        (unverified(10, "certificate has expired"), "(certificate has expired): renew it there"),
        (unverified(9, "certificate is not yet valid"), "compare the clocks"),
        (unverified(26, "unsuitable certificate purpose"), "replace it there"),
        (NotTlsError(ord("H")), "write http:// in upstream.endpoints"),
        (failed("TLSV1_ALERT_PROTOCOL_VERSION"), "bring it to TLS 1.2 or 1.3"),
        (failed("UNSUPPORTED_PROTOCOL"), "bring it to TLS 1.2 or 1.3"),
        (failed("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "set upstream.tls.certificate and upstream.tls.key"),
        (failed("TLSV1_ALERT_UNKNOWN_CA"), "(tlsv1 alert unknown ca): set upstream.tls.certificate"),
        (failed("SSLV3_ALERT_HANDSHAKE_FAILURE"), "upstream.tls.certificate"),
        (failed("BAD_RECORD_TYPE"), "TLS failed (bad record type)"),
        (ConnectionResetError("it ended"), "TLS failed (it ended)"),
    ],
)  # fmt: skip
def test_a_failure_says_what_to_do(error: Exception, says: str) -> None:
    """
    The cause in OpenSSL's words, and the remedy in ours.
    """
    assert says in str(of_upstream(error))


def test_words_are_never_empty() -> None:
    """
    An error without a text is told by its kind.
    """
    assert words(TimeoutError()) == "TimeoutError"
    assert words(OSError("it says so")) == "it says so"
