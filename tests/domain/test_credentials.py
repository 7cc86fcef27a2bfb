"""How to reach an object storage, from the usual environment variables."""

from __future__ import annotations

import pytest

from tasks.domain.credentials import Credentials, from_environment, meant_by

AWS = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "SK", "AWS_SESSION_TOKEN": "ST", "AWS_REGION": "eu-1",
       "AWS_ENDPOINT_URL": "http://aws:9000"}  # fmt: skip
OBS = {"OBS_ACCESS_KEY_ID": "OAK", "OBS_SECRET_ACCESS_KEY": "OSK", "OBS_SECURITY_TOKEN": "OST", "OBS_REGION": "cn-1",
       "OBS_ENDPOINT_URL": "https://obs:443"}  # fmt: skip


def shown(found: Credentials) -> tuple[str | None, ...]:
    """Endpoint, key, secret, token, region."""
    secrets = (found.secret_access_key, found.session_token)
    secret, token = (held.get_secret_value() if held is not None else None for held in secrets)
    return found.endpoint_url, found.access_key_id, secret, token, found.region


@pytest.mark.parametrize(
    ("scheme", "environment", "expected"),
    [
        ("s3", {}, (None, None, None, None, None)),
        ("s3", AWS, ("http://aws:9000", "AK", "SK", "ST", "eu-1")),
        ("s3", AWS | OBS, ("http://aws:9000", "AK", "SK", "ST", "eu-1")),
        ("s3", AWS | {"AWS_ENDPOINT_URL_S3": "http://s3:1"}, ("http://s3:1", "AK", "SK", "ST", "eu-1")),
        ("s3", {"AWS_DEFAULT_REGION": "us-1"}, (None, None, None, None, "us-1")),
        ("s3", {"AWS_REGION": "eu-1", "AWS_DEFAULT_REGION": "us-1"}, (None, None, None, None, "eu-1")),
        ("s3", {"AWS_ENDPOINT_URL": "minio:9000"}, ("https://minio:9000", None, None, None, None)),
        ("s3", {"AWS_ACCESS_KEY_ID": "", "AWS_REGION": ""}, (None, "", None, None, None)),
        ("obs", {}, (None, None, None, None, None)),
        ("obs", AWS, ("http://aws:9000", "AK", "SK", "ST", "eu-1")),
        ("obs", OBS, ("https://obs:443", "OAK", "OSK", "OST", "cn-1")),
        ("obs", AWS | OBS, ("https://obs:443", "OAK", "OSK", "OST", "cn-1")),
        ("obs", {"OBS_ENDPOINT": "obs.cn-1.host"}, ("https://obs.cn-1.host", None, None, None, None)),
        ("obs", AWS | {"OBS_ENDPOINT_URL": "https://obs:443"}, ("https://obs:443", "AK", "SK", "ST", "eu-1")),
        # A key of its own never meets a foreign secret or token.
        ("obs", AWS | {"OBS_ACCESS_KEY_ID": "OAK"}, ("http://aws:9000", "OAK", None, None, "eu-1")),
        ("obs", AWS | {"OBS_ACCESS_KEY_ID": "OAK", "OBS_SECRET_ACCESS_KEY": "OSK"},
         ("http://aws:9000", "OAK", "OSK", None, "eu-1")),
    ],
)  # fmt: skip
def test_credentials__are_those_of_the_scheme(
    scheme: str, environment: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    found = shown(from_environment(scheme, environment))
    assert tuple(value or None for value in found) == tuple(value or None for value in expected)


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("TRUE", True), ("false", False), ("", False), ("1", False)]
)
def test_credentials__switches_are_true_or_false(value: str, expected: bool) -> None:
    found = from_environment("s3", {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": value, "AWS_SKIP_SIGNATURE": value})
    assert found.virtual_hosted is expected
    assert found.anonymous is expected


def test_credentials__a_key_of_its_own_is_not_anonymous() -> None:
    environment = {"AWS_SKIP_SIGNATURE": "true", "OBS_ACCESS_KEY_ID": "OAK", "OBS_SECRET_ACCESS_KEY": "OSK"}
    assert from_environment("s3", environment).anonymous
    assert not from_environment("obs", environment).anonymous


@pytest.mark.parametrize(
    "fields",
    [
        {"endpoint_url": "http://e", "access_key_id": "AK", "secret_access_key": "SK", "session_token": "ST",
         "region": "r"},
        {"endpoint": "http://e", "key": "AK", "secret": "SK", "token": "ST", "region_name": "r", "unknown": 1},
        {"endpoint_url": "http://e", "aws_access_key_id": "AK", "aws_secret_access_key": "SK",
         "aws_session_token": "ST",
         "region_name": "r"},
    ],
)  # fmt: skip
def test_credentials__are_read_however_a_block_calls_them(fields: dict[str, str]) -> None:
    assert shown(Credentials.model_validate(fields)) == ("http://e", "AK", "SK", "ST", "r")


def test_credentials__show_no_secret() -> None:
    found = from_environment("s3", AWS | {"AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_SESSION_TOKEN": "hunter2"})
    assert "hunter2" not in f"{found} {found!r} {found.model_dump()} {found.model_dump_json()}"


@pytest.mark.parametrize("scheme", ["s3", "obs"])
@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t"])
def test_credentials__that_were_made_by_echo_have_no_blanks_around_them(scheme: str, end: str) -> None:
    names = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "ENDPOINT_URL": "http://127.0.0.1:9", "REGION": "r"}
    token = {"s3": "AWS_SESSION_TOKEN", "obs": "OBS_SECURITY_TOKEN"}[scheme]
    prefix = {"s3": "AWS", "obs": "OBS"}[scheme]
    environment = {f"{prefix}_{name}": f"{end}{text}{end}" for name, text in names.items()} | {token: f"token{end}"}
    found = from_environment(scheme, environment)
    assert found == from_environment(scheme, {name: text.strip() for name, text in environment.items()})
    assert found.secrets == ["secret", "token", "key"] and not found.odd_field
    block = Credentials.model_validate({"key": f"key{end}", "secret": f"secret{end}", "region_name": f"r{end}"})
    assert (block.access_key_id, block.secrets[0], block.region) == ("key", "secret", "r")


@pytest.mark.parametrize(
    ("field", "name"),
    [("access_key_id", "access key"), ("secret_access_key", "secret key"), ("session_token", "session token"),
     ("region", "region")],
)  # fmt: skip
def test_credentials__with_a_line_break_inside_are_named(field: str, name: str) -> None:
    assert Credentials.model_validate({field: "a\nb"}).odd_field == name


OBS_KEYS = {name: OBS[name] for name in ("OBS_ACCESS_KEY_ID", "OBS_SECRET_ACCESS_KEY")}


@pytest.mark.parametrize(
    ("scheme", "environment", "endpoint", "key"),
    [
        ("s3", OBS, "https://obs:443", "OAK"),
        ("obs", OBS, "https://obs:443", "OAK"),
        ("s3", OBS_KEYS | {"OBS_REGION": "cn-north-4"}, "https://obs.cn-north-4.myhuaweicloud.com", "OAK"),
        ("obs", OBS_KEYS | {"OBS_REGION": "cn-north-4\n"}, "https://obs.cn-north-4.myhuaweicloud.com", "OAK"),
        ("s3", OBS | {"AWS_REGION": "eu-1"}, "https://obs:443", "OAK"),
        ("s3", OBS | AWS, "http://aws:9000", "AK"),
        ("s3", OBS | {"AWS_PROFILE": "mine"}, None, None),
        ("s3", OBS | {"AWS_ACCESS_KEY_ID": "AK"}, None, "AK"),
        ("s3", {"OBS_ENDPOINT_URL": "https://obs:443"}, None, None),
        ("s3", {}, None, None),
        ("obs", AWS, "http://aws:9000", "AK"),
    ],
)  # fmt: skip
def test_credentials__of_obs_alone_are_those_of_s3_addresses_too(
    scheme: str, environment: dict[str, str], endpoint: str | None, key: str | None
) -> None:
    found = meant_by(scheme, {}, environment)
    assert (found.endpoint_url, found.access_key_id) == (endpoint, key)


@pytest.mark.parametrize(
    ("scheme", "environment", "said"),
    [
        ("obs", OBS_KEYS, "obs:// needs an endpoint: set OBS_ENDPOINT_URL, or OBS_REGION to a region"),
        ("obs", {}, "obs:// needs an endpoint: set OBS_ENDPOINT_URL, or OBS_REGION to a region"),
        ("s3", OBS_KEYS, "s3:// means OBS where only OBS_... keys are set, which needs an endpoint: set OBS_ENDPOINT"),
        ("obs", OBS_KEYS | {"OBS_REGION": "cn/../x"}, "such as cn-north-4, not 'cn/../x',"),
    ],
)  # fmt: skip
def test_credentials__of_obs_without_endpoint_and_region_are_refused(
    scheme: str, environment: dict[str, str], said: str
) -> None:
    with pytest.raises(ValueError, match="OBS_ENDPOINT_URL") as refused:
        meant_by(scheme, {}, environment)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_credentials__that_were_given_come_first() -> None:
    given = Credentials(endpoint_url="https://given", access_key_id="GIVEN")
    assert meant_by("obs", {"obs": given}, OBS) == given
    assert meant_by("s3", {"obs": given}, {}) == given
    assert meant_by("s3", {"obs": given}, AWS).access_key_id == "AK"
    assert meant_by("s3", {"s3": given}, OBS) == given
    assert meant_by("s3", {"obs": given}, {}, has_profile=True).endpoint_url is None


@pytest.mark.parametrize("region", ["a b", "us-east-1/../x", "\xfc", "us-east-1\nx", "us@host"])
def test_credentials__a_region_that_no_host_name_can_hold_is_odd(region: str) -> None:
    assert Credentials(region=region).odd_field == "region"


@pytest.mark.parametrize(
    ("scheme", "environment", "shown"),
    [
        ("s3", {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7"}, "access key AKIA... of AWS_ACCESS_KEY_ID"),
        ("obs", {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7"}, "access key AKIA... of AWS_ACCESS_KEY_ID"),
        ("obs", {"AWS_ACCESS_KEY_ID": "x", "OBS_ACCESS_KEY_ID": "HST3W19"}, "access key HST3... of OBS_ACCESS_KEY_ID"),
        ("s3", {}, ""),
    ],
)
def test_credentials__tell_which_key_they_are_and_where_it_is_set(
    scheme: str, environment: dict[str, str], shown: str
) -> None:
    assert from_environment(scheme, environment).shown_key == shown
