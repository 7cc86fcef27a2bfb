"""The environment in which a package's dependencies are installed."""

from __future__ import annotations

import pytest

from tasks.domain.environment import installer_environment


def test_installer__sees_what_a_model_server_sees_and_what_sets_it_up() -> None:
    own = {
        "PATH": "/bin", "HOME": "/h", "UV_INDEX_URL": "https://mirror/simple", "https_proxy": "http://proxy:3128",
        "AWS_SECRET_ACCESS_KEY": "x", "PREFECT_API_AUTH_STRING": "x", "THRESHER_CACHE": "/c", "GITHUB_TOKEN": "x",
        "DATABASE_URL": "postgres://u:p@h", "UV_PUBLISH_TOKEN": "x", "PYTHONPATH": "/p",
    }  # fmt: skip
    found, secret = installer_environment(own)
    assert set(found) & set(own) == {"PATH", "HOME", "UV_INDEX_URL", "https_proxy"}
    assert secret == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UV_INDEX_URL", "https://user:password@mirror/simple"),
        ("UV_EXTRA_INDEX_URL", "https://a/simple https://token@b/simple"),
        ("UV_INDEX_OURS_PASSWORD", "x"),
        ("HTTPS_PROXY", "http://user:password@proxy:3128"),
    ],
)
def test_installer__with_a_password_says_so(name: str, value: str) -> None:
    found, secret = installer_environment({name: value, "UV_KEYRING_PROVIDER": "subprocess"})
    assert (found[name], secret) == (value, name)
