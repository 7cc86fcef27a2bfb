"""What is wrong with the environment of a process is named: certificates, proxies, Prefect's settings, folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes.certificates import pem_files

from tasks.clients.cluster.dask_security import made_identity
from tasks.clients.surroundings import surroundings
from tasks.clients.surroundings.surroundings import explained, wrong_surroundings
from tasks.domain.errors import CallError


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SSL_CERT_FILE", "{tmp}/missing.pem", "that can be read: No such file or directory"),
        ("SSL_CERT_FILE", "{tmp}", "that can be read: Is a directory"),
        ("AWS_CA_BUNDLE", "{tmp}/garbage", "it holds no certificate"),
        ("REQUESTS_CA_BUNDLE", "{tmp}/empty", "it holds no certificate"),
        ("HTTP_PROXY", "http://", "should be the address of a proxy"),
        ("https_proxy", "http://h:99999", "should be the address of a proxy"),
        ("ALL_PROXY", "http://[::1", "should be the address of a proxy"),
        ("ALL_PROXY", "ftp://host:21", "should be the address of a proxy"),
        ("PREFECT_API_URL", "localhost:4200", "should be the API of a Prefect server"),
        ("PREFECT_API_URL", "http://host:99999/api", "should be the API of a Prefect server"),
        ("PREFECT_API_URL", "http://[::1/api", "should be the API of a Prefect server"),
        ("PREFECT_API_URL", "http://a b/api", "should be the API of a Prefect server"),
        ("PREFECT_API_URL", " ", "should be the API of a Prefect server"),
        ("PREFECT_LOGGING_LEVEL", "nope", "should be one of DEBUG"),
        ("PREFECT_PROFILE", "nope", "there are cloud, ephemeral, local, test"),
        ("PREFECT_PROFILES_PATH", "{tmp}/garbage", "should hold Prefect's profiles as TOML"),
        ("PREFECT_PROFILES_PATH", "{tmp}/no-table", "profiles is no table"),
        ("TMPDIR", "{tmp}/missing", "should be a folder in which files can be made"),
        ("TMPDIR", "{tmp}/garbage", "should be a folder in which files can be made"),
    ],
)
def test_surroundings__that_cannot_work_are_named_with_their_value(
    tmp_path: Path, variable: str, value: str, expected: str
) -> None:
    (tmp_path / "garbage").write_text("garbage [[[")
    (tmp_path / "empty").write_text("")
    (tmp_path / "no-table").write_text("profiles = 3")
    value = value.format(tmp=tmp_path)
    (problem,) = wrong_surroundings({"PREFECT_HOME": str(tmp_path), variable: value})
    assert (problem.field, problem.value) == (variable, value)
    assert expected in problem.expected


@pytest.mark.parametrize("name", ["PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"])
@pytest.mark.parametrize("value", ["k\xfc", "k\ny", "k\ry", "k\0y", "k\ty"])
def test_surroundings__keys_that_no_header_can_carry_are_named_without_their_value(
    tmp_path: Path, name: str, value: str
) -> None:
    (problem,) = wrong_surroundings({"PREFECT_HOME": str(tmp_path), name: value})
    assert (problem.field, problem.value) == (name, None)
    assert wrong_surroundings({"PREFECT_HOME": str(tmp_path), name: "key\n"}) == []  # taken off


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"HTTP_PROXY": "http://host:3128", "https_proxy": "host:3128", "ALL_PROXY": "", "NO_PROXY": "*"},
        {"PREFECT_API_URL": "https://host.example/api", "PREFECT_LOGGING_LEVEL": "debug"},
        {"AWS_CA_BUNDLE": "/etc", "TMPDIR": "/tmp"},
    ],
    ids=["nothing", "proxies", "a server", "folders"],
)
def test_surroundings__that_work_are_not_blamed(given: dict[str, str], tmp_path: Path) -> None:
    assert wrong_surroundings({"PREFECT_HOME": str(tmp_path), **given}) == []


def test_surroundings__a_file_with_a_certificate_is_right(tmp_path: Path) -> None:
    path = pem_files(tmp_path / "pem", made_identity())["certificate_file"]
    assert wrong_surroundings({"SSL_CERT_FILE": path, "PREFECT_HOME": str(tmp_path)}) == []


def test_surroundings__passwords_of_proxies_are_not_shown() -> None:
    (problem,) = wrong_surroundings({"HTTP_PROXY": "http://user:hunter3@host:99999", "PREFECT_HOME": "/missing"})
    assert "hunter3" not in str(problem)


def test_error__of_a_working_folder_that_is_gone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        with pytest.raises(FileNotFoundError) as raised:
            os.getcwd()
        said = explained(raised.value)
    finally:
        monkeypatch.undo()
    assert isinstance(said, CallError)
    assert str(said).startswith("The working folder cannot be used any more")


def test_error__whose_cause_is_unknown_keeps_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "wrong_surroundings", list)
    error = KeyError("x")
    said = explained(error)
    assert str(said) == "An unexpected error (KeyError): 'x'. `--verbose` shows the trace."
    assert said.__cause__ is error
