"""The fakes behave as the tests rely on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from fakes.model_behaviour import iris, item_key
from fakes.model_server import FakeModelServer
from fakes.odd_s3_server import OddS3Server
from fakes.processes import DEADLINE_SECONDS, FakeDidNotStart, alive, closed_port, meanwhile, poll
from fakes.s3_server import S3Server
from fakes.share_server import ShareServer
from obstore.exceptions import InvalidPathError, PermissionDeniedError
from obstore.store import S3Store

ODD_NAMES = [
    "a b",
    "a%b",
    "a%20b",
    "a%2Fb",
    "a#b",
    "a?b",
    "a+b",
    "a'b",
    'a"b',
    "汉字.jpg",
    "😀.png",
    "tail ",
    "n" * 255,
]


def obstore_for(environment: dict[str, str], bucket: str, **options: object) -> S3Store:
    """An obstore store for a fake's environment, without retries."""
    return S3Store(
        bucket,
        endpoint=environment["AWS_ENDPOINT_URL"],
        region=environment["AWS_REGION"],
        access_key_id=environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=str(options.get("secret", environment["AWS_SECRET_ACCESS_KEY"])),
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "objects") as server:
        yield server


@pytest.fixture(scope="module")
def model() -> Iterator[FakeModelServer]:
    with FakeModelServer("--count-items") as server:
        yield server


def post(model: FakeModelServer, body: bytes, path: str = "/") -> requests.Response:
    return requests.post(model.url + path, data=body, timeout=DEADLINE_SECONDS)


def test_s3_server__keeps_odd_names_in_every_client(s3: S3Server) -> None:
    for name in ODD_NAMES:
        s3.put("odd-names", f"in/{name}", name.encode())
    assert s3.keys("odd-names") == sorted((f"in/{name}" for name in ODD_NAMES), key=str.encode)
    store = obstore_for(s3.environment(), "odd-names")
    assert {meta["path"] for meta in store.list("in").collect()} == {f"in/{name}" for name in ODD_NAMES}
    for name in ODD_NAMES:
        assert s3.get("odd-names", f"in/{name}") == store.get(f"in/{name}").bytes().to_bytes() == name.encode()


def test_s3_server__refuses_a_wrong_secret(s3: S3Server) -> None:
    s3.put("private", "a.txt", b"hello")
    with pytest.raises(PermissionDeniedError):
        obstore_for(s3.environment(), "private", secret="wrong").get("a.txt")


def test_s3_server__lists_by_prefix_and_says_what_is_missing(s3: S3Server) -> None:
    s3.make_bucket("listing")
    for key in ("in/1", "in/sub/2", "in2/3"):
        s3.put("listing", key, b"")
    assert s3.keys("listing", "in/") == ["in/1", "in/sub/2"]
    assert s3.keys("no-such-bucket") == []
    with pytest.raises(KeyError):
        s3.get("listing", "nothing")


def test_s3_server__names_its_variables_for_obs(s3: S3Server) -> None:
    assert set(s3.environment("OBS")) == {"OBS_ENDPOINT_URL", "OBS_ACCESS_KEY_ID", "OBS_SECRET_ACCESS_KEY"}


def test_s3_server__is_gone_after_its_block(tmp_path: Path) -> None:
    with S3Server(tmp_path / "s3") as server:
        assert Path(f"/proc/{server.pid}").exists()
    assert not Path(f"/proc/{server.pid}").exists()


@pytest.mark.parametrize("fake", ["s3", "model"])
def test_fakes__die_with_their_parent(tmp_path: Path, fake: str) -> None:
    start = {"s3": f"S3Server(Path({str(tmp_path / 's3')!r}))", "model": "FakeModelServer()"}[fake]
    script = (
        "import time; from pathlib import Path\n"
        "from fakes.s3_server import S3Server; from fakes.model_server import FakeModelServer\n"
        f"with {start} as fake: print(fake.pid, flush=True); time.sleep(600)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    poll(lambda: not alive(child))


def test_odd_s3_server__shows_what_obstore_does_to_odd_keys() -> None:
    with OddS3Server({"data": {"dir/": b"", "dir": b"a file", "k//1": b"x"}}, page_size=2) as server:
        store = obstore_for(server.environment(), "data")
        assert store.get("dir/").bytes().to_bytes() == b"a file"
        with pytest.raises(InvalidPathError):
            store.list().collect()
        with pytest.raises(ValueError, match="empty path segment"):
            store.get("k//1")


def test_odd_s3_server__takes_multipart_uploads_and_fails_on_demand() -> None:
    with OddS3Server({"data": {}}) as server:
        store = obstore_for(server.environment(), "data")
        asyncio.run(stream(store, "big", 12))
        assert len(server.buckets["data"]["big"]) == 12 << 20
        server.fail_next(503)
        with pytest.raises(Exception, match="503"):
            store.head("big")
        assert store.head("big")["size"] == 12 << 20


async def stream(store: S3Store, key: str, megabytes: int) -> None:
    import obstore

    async with obstore.open_writer_async(store, key, buffer_size=5 << 20) as writer:
        for _ in range(megabytes):
            await writer.write(bytes(1 << 20))


def test_model_server__answers_small_json_echo_and_iris(model: FakeModelServer) -> None:
    row = {"sepal_length": 5.1, "sepal_width": 3.5}
    assert post(model, b"12345").json() == {"ok": True, "n": 5}
    assert post(model, b"\x00binary", "/echo").content == b"\x00binary"
    answer = requests.post(
        model.url + "/iris", json={"data": {"req_data": [row, row]}}, timeout=DEADLINE_SECONDS
    ).json()
    assert answer == {"data": {"resp_data": [iris(row), iris(row)]}}


def test_model_server__reads_chunked_bodies_and_keeps_the_connection(model: FakeModelServer) -> None:
    before = model.stats()["connections"]
    with requests.Session() as session:
        for _ in range(3):
            assert (
                session.post(model.url + "/echo", data=iter([b"one ", b"two"]), timeout=DEADLINE_SECONDS).content
                == b"one two"
            )
    assert model.stats()["connections"] == before + 2  # the session's, and that of this query


@pytest.mark.parametrize(
    ("marker", "statuses"),
    [
        ("FAIL:500", [500, 500, 500]),
        ("FAIL:404", [404, 404, 404]),
        ("FAIL:503:2", [503, 503, 200]),
        ("FAIL:429:3:1", [429, 200, 200]),
    ],
)
def test_model_server__fails_with_a_status(model: FakeModelServer, marker: str, statuses: list[int]) -> None:
    assert [post(model, f"item {marker}".encode()).status_code for _ in statuses] == statuses


def test_model_server__tells_when_to_come_back(model: FakeModelServer) -> None:
    assert post(model, b"later FAIL:429:7:1").headers["Retry-After"] == "7"


def test_model_server__answers_nonsense(model: FakeModelServer) -> None:
    with pytest.raises(requests.JSONDecodeError):
        post(model, b"FAIL:badjson").json()
    assert post(model, b"FAIL:empty").content == b""
    assert len(post(model, b"FAIL:20mb").content) == 20 << 20


def test_model_server__is_slow_or_silent(model: FakeModelServer) -> None:
    start = time.monotonic()
    assert post(model, b"FAIL:slow:0.3").status_code == 200
    assert time.monotonic() - start > 0.29
    with pytest.raises(requests.ReadTimeout):
        requests.post(model.url, data=b"FAIL:hang", timeout=0.3)


def test_model_server__closes_the_connection_so_many_times(model: FakeModelServer) -> None:
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            post(model, b"FAIL:close:2")
    assert post(model, b"FAIL:close:2").status_code == 200


def test_model_server__counts_items_whatever_the_multipart_boundary(model: FakeModelServer) -> None:
    for _ in range(2):
        requests.post(model.url, files={"images": ("1.jpg", b"the bytes of 1.jpg")}, timeout=DEADLINE_SECONDS)
    assert model.stats()["items"][item_key(b"the bytes of 1.jpg")] == 2


def test_model_server__dies_and_remembers_after_a_restart(tmp_path: Path) -> None:
    with FakeModelServer("--state", str(tmp_path / "state.json")) as model:
        with pytest.raises(requests.ConnectionError):
            post(model, b"FAIL:die:1")
        assert model.process and model.process.wait(DEADLINE_SECONDS) == 137
        model.start()
        assert post(model, b"FAIL:die:1").status_code == 200
        assert model.stats()["starts"] == 2


def test_model_server__serves_so_many_at_once(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def open_it() -> None:
        try:
            poll(lambda: model.stats()["max_in_flight"] == 12, "all requests in flight at once")
        finally:
            gate.touch()

    with FakeModelServer("--service-time", "50", "--parallelism", "4") as model:
        start = time.monotonic()
        with meanwhile(open_it), ThreadPoolExecutor(12) as pool:
            answers = pool.map(lambda _: post(model, b"FAIL:until:%s" % bytes(gate)), range(12))
            assert {answer.status_code for answer in answers} == {200}
        assert time.monotonic() - start >= 0.15  # 12 requests, 4 at once, 50 ms each


def test_model_server__gets_slower_in_the_middle() -> None:
    with FakeModelServer("--service-time", "10", "--then", "2:200:1") as model:
        took = []
        for _ in range(3):
            start = time.monotonic()
            post(model, b"item")
            took.append(time.monotonic() - start)
        assert took[2] >= 0.2


def test_model_server__uses_the_cpu() -> None:
    with FakeModelServer("--cpu-time", "100") as model:
        before = _cpu_seconds(model.pid)
        with ThreadPoolExecutor(3) as pool:
            answers = pool.map(lambda _: post(model, b"item"), range(3))
            assert {answer.status_code for answer in answers} == {200}
        assert _cpu_seconds(model.pid) - before >= 0.28  # the kernel counts in hundredths of a second


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_model_server__knows_when_the_first_request_came_and_the_last_answer_went() -> None:
    with FakeModelServer() as model:
        assert (model.stats()["first_request_at"], model.stats()["last_answer_at"]) == (0, 0)
        before = time.time()
        post(model, b"one")
        between = time.time()
        post(model, b"two")
        stats = model.stats()
        assert before <= stats["first_request_at"] <= between <= stats["last_answer_at"] <= time.time()


def test_model_server__answers_once_a_file_exists(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    item = f"FAIL:until:{gate} more".encode()
    with FakeModelServer() as model, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, model, item, "/echo")
        poll(lambda: model.stats()["seen"].get(item_key(item)))
        assert not waiting.done()
        gate.touch()
        assert waiting.result().content == item


def test_model_server__is_healthy_late_or_never(tmp_path: Path) -> None:
    with FakeModelServer("--health-when", str(tmp_path / "go"), wait_healthy=False) as model:
        assert requests.get(model.url + "/health", timeout=DEADLINE_SECONDS).status_code == 503
        (tmp_path / "go").touch()
        assert requests.get(model.url + "/health", timeout=DEADLINE_SECONDS).status_code == 200
    with pytest.raises(FakeDidNotStart), FakeModelServer("--health", "never", timeout_seconds=0.6):
        pass


def test_model_server__may_not_start_at_all() -> None:
    with pytest.raises(FakeDidNotStart, match="code 3"), FakeModelServer("--exit-at-start", "3"):
        pass


@pytest.mark.parametrize("kind", ["child", "setsid"])
def test_model_server__leaves_a_child_behind(kind: str) -> None:
    with FakeModelServer("--spawn-child", kind) as model:
        child = int(model.log.read_text().partition("child ")[2].split()[0])
        sessions = os.getsid(child), os.getsid(model.pid)
    try:
        assert alive(child)
        assert (sessions[0] != sessions[1]) == (kind == "setsid")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_closed_port__refuses_connections_for_as_long_as_it_is_held() -> None:
    with closed_port() as port:
        for _ in range(2):
            with pytest.raises(requests.ConnectionError, match="refused"):
                requests.get(f"http://127.0.0.1:{port}", timeout=DEADLINE_SECONDS)


def test_odd_s3_server__counts_the_bytes_that_were_taken() -> None:
    with OddS3Server({"data": {"small": b"12345"}}) as server:
        store = obstore_for(server.environment(), "data")
        assert store.get("small").bytes().to_bytes() == b"12345"
        assert server.sent == {"/data/small": 5}


def test_share_server__serves_signed_links_for_a_time() -> None:
    with ShareServer({"汉 1.jpg": b"image"}) as share:
        assert requests.get(share.link("汉 1.jpg"), timeout=DEADLINE_SECONDS).content == b"image"
        expired = requests.get(share.link("汉 1.jpg", valid_seconds=-10), timeout=DEADLINE_SECONDS)
        assert (expired.status_code, "Request has expired" in expired.text) == (403, True)
        forged = requests.get(share.link("汉 1.jpg").replace("Expires=", "Expires=9"), timeout=DEADLINE_SECONDS)
        assert (forged.status_code, "SignatureDoesNotMatch" in forged.text) == (403, True)
        assert requests.get(share.link("unknown"), timeout=DEADLINE_SECONDS).status_code == 404
        assert requests.get(f"{share.url}/missing", timeout=DEADLINE_SECONDS).status_code == 404
        assert share.requests["/missing"] == 1


def test_share_server__redirects_falters_and_streams() -> None:
    with ShareServer({"a": b"image"}) as share:
        assert (
            requests.get(f"{share.url}/redirect", params={"to": share.link("a")}, timeout=DEADLINE_SECONDS).content
            == b"image"
        )
        flaky = [requests.get(f"{share.url}/flaky?times=2", timeout=DEADLINE_SECONDS).status_code for _ in range(3)]
        assert flaky == [503, 503, 200]
        assert requests.get(f"{share.url}/slow?seconds=0.2", timeout=DEADLINE_SECONDS).elapsed.total_seconds() > 0.19
        for extra in ("", "&chunked=1"):
            assert len(requests.get(f"{share.url}/big?size=300000{extra}", timeout=DEADLINE_SECONDS).content) == 300_000
        with pytest.raises(requests.RequestException):
            requests.get(f"{share.url}/big?size=300000&cut=1", timeout=DEADLINE_SECONDS)


def test_model_server__answers_the_open_inference_protocol(model: FakeModelServer) -> None:
    asked = {"id": "7", "inputs": [{"name": "x", "shape": [3, 1], "datatype": "FP32", "data": [1, 2, 3]}]}
    body = json.dumps(asked).encode()
    for sent in (body, body + b"\x00\xff"):  # tensors may follow in binary
        told = post(model, sent, "/v2/models/m/infer").json()
        output = {"name": "n", "datatype": "INT64", "shape": [3, 1], "data": [len(sent)] * 3}
        assert told == {"model_name": "m", "id": "7", "outputs": [output]}
    assert post(model, b"{}", "/v2/models/m/infer").status_code == 400
    assert post(model, body, "/v2/models/m").status_code == 400


def test_model__counts_from_where_it_was_told_to_forget_and_is_there_again_if_it_had_ended() -> None:
    with FakeModelServer("--count-items") as model:
        post(model, b"FAIL:404")
        model.forget()
        assert [model.stats()[name] for name in ("items", "seen", "max_in_flight")] == [{}, {}, 0]
        with contextlib.suppress(requests.ConnectionError):
            post(model, b"FAIL:die")
        assert model.process is not None
        model.process.wait(DEADLINE_SECONDS)
        model.forget()
        post(model, b"x")
        assert model.stats()["items"] == {item_key(b"x"): 1}
