"""Texts as people may see them."""

from __future__ import annotations

import pytest

from sidecar.config.load import read
from sidecar.config.mask import mask

HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            f"admin: {{tokens: [{{name: a, sha256: {HASH}}}]}} # é\n",
            "admin: {tokens: [{name: a, sha256: (hidden)}]} # é\n",
        ),
        (f'# ü\r\nsha256: "{HASH}"\r\nb: 1\r\n', '# ü\r\nsha256: "(hidden)"\r\nb: 1\r\n'),
        (f"\ufeffsha256: '{HASH}' # x", "\ufeffsha256: '(hidden)' # x"),
        (f"- sha256: &h {HASH}\n- sha256: *h\n", "- sha256: &h (hidden)\n- sha256: *h\n"),
        ('- {sha256: short}\n- {sha256: "\\u0030a"}', '- {sha256: (hidden)}\n- {sha256: "(hidden)"}'),
        ("sha256: |-\n  abc\nnext: 1\n", "sha256: (hidden)\nnext: 1\n"),
        (f"# old: {HASH}\na: 1\n", "# old: (hidden)\na: 1\n"),
        (f"broken: [ {HASH.upper()}", "broken: [ (hidden)"),
        ("a:   1   # untouched\n\n\n", "a:   1   # untouched\n\n\n"),
        ("", ""),
    ],
)
def test_hashes_are_hidden_and_all_else_stays_byte_for_byte(text: str, masked: str) -> None:
    """
    Each value of `sha256` and whatever looks like a hash is hidden, in any style; nothing else moves.
    """
    assert masked == mask(text)
    assert masked == mask(masked)


def test_a_masked_text_can_be_applied_again() -> None:
    """
    What `config show` prints is valid: an applied version never touches the tokens.
    """
    text = f"admin: {{tokens: [{{name: a, role: admin, sha256: {HASH}}}]}}\ndrain: {{grace: 5s}}\n"
    assert read(mask(text), name="f").drain.grace == 5.0
