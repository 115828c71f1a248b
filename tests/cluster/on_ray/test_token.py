"""Tokens: private files, the environment left as it was, the user's own words obeyed."""

import os
import stat
from pathlib import Path

import pytest

from nas_cluster.cluster.on_ray.token import MODE, TOKEN, TOKEN_PATH, SessionToken, use_available_token


@pytest.fixture(autouse=True)
def no_token(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)


def test_a_cluster_of_our_own_has_a_token_that_only_this_user_can_read():
    tokens = set()
    before = os.umask(0)
    try:
        for _ in range(2):
            session, path = SessionToken(), Path(os.environ[TOKEN_PATH])
            assert os.environ[MODE] == "token"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            tokens.add(path.read_text())
            session.close()
            assert not path.exists()
    finally:
        os.umask(before)
    assert [len(token) for token in tokens] == [64, 64]
    assert not {MODE, TOKEN, TOKEN_PATH} & set(os.environ)


def test_what_the_user_says_is_done(monkeypatch, tmp_path):
    monkeypatch.setenv(MODE, "disabled")
    SessionToken()
    assert TOKEN_PATH not in os.environ
    monkeypatch.setenv(MODE, "token")
    monkeypatch.setenv(TOKEN, "mine")
    SessionToken()
    assert TOKEN_PATH not in os.environ


def test_a_token_that_is_there_is_used(monkeypatch, tmp_path):
    use_available_token()
    assert MODE not in os.environ
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x" * 40)
    use_available_token()
    assert os.environ[MODE] == "token"
    monkeypatch.setenv(MODE, "disabled")
    use_available_token()
    assert os.environ[MODE] == "disabled"
