"""The install key and the client keys made with it."""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

import pytest

from sidecar.store.errors import Cause, StoreError
from sidecar.store.key import KEY_FILE, client_key, load_install_key


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    """The first call makes 32 random bytes in a 0600 file, every later one reads them."""
    key = load_install_key(tmp_path)

    assert len(key) == 32
    assert load_install_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [tmp_path / KEY_FILE] == list(tmp_path.iterdir())
    (tmp_path / "other").mkdir()
    assert load_install_key(tmp_path / "other") != key


def test_key_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    """A key open to all is refused with the command that mends it; a group's volume is accepted."""
    load_install_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o660)
    load_install_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)

    with pytest.raises(StoreError, match="everybody may read it: chmod 600"):
        load_install_key(tmp_path)


@pytest.mark.parametrize("text", ["", "abcd", "zz" * 32, "ab" * 33])
def test_damaged_key_is_named(text: str, tmp_path: Path) -> None:
    """A damaged key is never silently replaced: client keys and signatures depend on it."""
    (tmp_path / KEY_FILE).write_text(text)
    (tmp_path / KEY_FILE).chmod(0o600)

    with pytest.raises(StoreError, match="not 64 hex digits") as found:
        load_install_key(tmp_path)
    assert found.value.cause is Cause.CORRUPT


def test_missing_directory_is_named(tmp_path: Path) -> None:
    """A state directory that is not there is a StoreError with the path."""
    with pytest.raises(StoreError, match="nowhere") as found:
        load_install_key(tmp_path / "nowhere")
    assert found.value.cause is Cause.UNWRITABLE


def test_client_key_is_the_documented_hmac() -> None:
    """A client key is `h-` and 16 hex digits of HMAC-SHA-256(install key, value)."""
    expected = "h-" + hmac.new(b"k", b"secret", hashlib.sha256).hexdigest()[:16]

    assert client_key(b"k", "secret") == expected
    assert client_key(b"other", "secret") != expected
