"""Packages of the original platform run unchanged: its modules, base classes, constructors, paths and serialisation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

# The fixtures of conftest.py; their types are written out here because tests are no package.
StartServer = Any
WritePackage = Any

PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
OLD_PYTHONS = ("3.6", "3.7", "3.13")
PYTORCH = {"model_type": "PyTorch", "apis": [{"method": "post", "url": "/"}]}
XGBOOST = {"model_type": "XGBoost", "apis": [{"method": "post", "url": "/"}]}
TENSORFLOW = {"model_type": "TensorFlow", "apis": [{"method": "post", "url": "/"}]}

ECHO = """
class Service({base}):
    def _inference(self, data): return {result}
"""


def python(version: str) -> str:
    """The interpreter of this version; the test is skipped without it."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    for path in (shutil.which(f"python{version}"), *PYENV.glob(f"versions/{version}.*/bin/python")):
        if path is not None:
            done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
            if done.stdout.strip() == version:
                return str(path)
    pytest.skip(f"this machine has no Python {version}")


@pytest.mark.parametrize(
    ("line", "base"),
    [
        ("from model_service.model_service import SingleNodeService", "SingleNodeService"),
        ("from model_service import PTServingBaseService", "PTServingBaseService"),
        ("from model_service.pytorch_model_service import PTServingBaseService", "PTServingBaseService"),
        ("from model_service.hiai_model_service import HiaiBaseService", "HiaiBaseService"),
        ("from hiai_model_service import HiaiBaseService", "HiaiBaseService"),
        ("from mms.model_service.mxnet_model_service import MXNetBaseService", "MXNetBaseService"),
        ("from mms.model_service.model_service import SingleNodeService", "SingleNodeService"),
        ("import model_service.tfserving_model_service as tf", "tf.TfServingBaseService"),
    ],
)
def test_base_class__is_found_by_each_path_that_packages_use(
    write_package: WritePackage, start_server: StartServer, line: str, base: str
) -> None:
    service = line + ECHO.format(base=base, result='{"got": data}')
    assert start_server(write_package(service)).ready().post({"a": 1}).json() == {"got": {"a": 1}}


@pytest.mark.parametrize("version", OLD_PYTHONS)
def test_server__runs_on_old_and_new_pythons(
    write_package: WritePackage, start_server: StartServer, version: str
) -> None:
    service = """
import sys, threading, time
import log
from metric.metrics_manager import MetricsManager
from model_service import log as other_log
from mms.log import get_logger
from model_service.pytorch_model_service import PTServingBaseService
logger = log.getLogger(__name__)
class Service(PTServingBaseService):
    def __init__(self, model_name, model_path):
        self.model_name, self.model = model_name, None
        threading.Thread(target=self.load).start()
    def load(self):
        time.sleep(1)
        self.model = len
    def _preprocess(self, data):
        logger.info("图 is asked")
        if "x" in MetricsManager.metrics:
            MetricsManager.metrics["x"].update(1)
        MetricsManager.metrics["y"].update(1.5)
        return data
    def _inference(self, data):
        files = {name: file.read().decode() for name, file in data["images"].items()} if "images" in data else data
        return {"files": files, "python": "%d.%d" % sys.version_info[:2], "length": self.model(files), "图": 1.5}
"""
    server = start_server(write_package(service, PYTORCH), python=python(version)).ready()
    form = b'--b\r\nContent-Disposition: form-data; name="images"; filename="\xe5\x9b\xbe.png"\r\n\r\nPNG\r\n--b--\r\n'
    answer = server.post(form, "multipart/form-data; boundary=b")
    assert answer.json() == {"files": {"图.png": "PNG"}, "python": version, "length": 1, "图": 1.5}
    assert "图".encode() in answer.body  # ensure_ascii=False
    assert server.post({"a": 1}).json()["files"] == {"a": 1}
    assert "INFO customize_service: 图 is asked" in server.output()
    server.process.terminate()
    assert server.end() == 0


def test_own_module__takes_precedence_over_one_of_the_platform(
    write_package: WritePackage, start_server: StartServer
) -> None:
    service = (
        "import log\nfrom model_service.extra import X\nfrom model_service.model_service import SingleNodeService"
        + ECHO.format(base="SingleNodeService", result="[log.NAME, X]")
    )
    folder = write_package(service, log__py="NAME = 'own'")
    (folder / "model_service").mkdir()
    (folder / "model_service" / "extra.py").write_text("X = 'stub'")
    assert start_server(folder).ready().post({}).json() == ["own", "stub"]


def test_folder__is_the_package_model(write_package: WritePackage, start_server: StartServer) -> None:
    service = "from model.net import NAME\nfrom model_service.model_service import SingleNodeService" + ECHO.format(
        base="SingleNodeService", result="NAME"
    )
    assert start_server(write_package(service, net__py="NAME = 'net'")).ready().post({}).body == b"net"


@pytest.mark.parametrize("version", ["3.6", "3.11"])
def test_home_mind_model__is_the_packages_folder(
    write_package: WritePackage, start_server: StartServer, version: str
) -> None:
    service = """
import helper
from model_service.pytorch_model_service import PTServingBaseService
class Service(PTServingBaseService):
    def _inference(self, data):
        name = "labels.txt"
        texts = [open("/home/mind/model/labels.txt").read(), open(f"/home/mind/model/{name}").read(), helper.text()]
        return [*texts, "/home/mind/models"]
"""
    helper = "def text(): return open('/home/mind/model' + '/labels.txt').read()"
    folder = write_package(service, PYTORCH, labels__txt="cat", helper__py=helper)
    server = start_server(folder, python=python(version)).ready()
    assert server.post({}).json() == ["cat", "cat", "cat", "/home/mind/models"]
    assert not (folder / "__pycache__").exists()


def test_home_mind_model__that_is_put_together_is_explained(
    write_package: WritePackage, start_server: StartServer
) -> None:
    service = "open('/home/mind/' + 'model/labels.txt')"
    server = start_server(write_package(service))
    assert server.end() == 1
    assert (
        server.output()
        .splitlines()[-1]
        .endswith(
            "'/home/mind/model/labels.txt'; /home/mind/model is the package's folder on the original platform only: "
            "use self.model_path or __file__"
        )
    )


@pytest.mark.parametrize(
    ("lines", "result"),
    [
        ("    def __init__(self, model_path): self.got = [model_path]", ["weights.pth"]),
        ("    def __init__(self, model_path, **more): self.got = [model_path]", ["weights.pth"]),
        ("    def __init__(self, model_path, device='cpu'): self.got = [model_path, device]", ["weights.pth", "cpu"]),
        ("    def __init__(self, name, path): self.got = [name, path]", ["tiny", "weights.pth"]),
        ("    def __init__(self, *both): self.got = both", ["tiny", "weights.pth"]),
        (
            "    def __init__(self, name, path):\n"
            "        super(Service, self).__init__(path)\n"
            "        self.got = [self.model_path]",
            ["weights.pth"],
        ),
        ("    def __init__(self): self.got = []", []),
    ],
)  # fmt: skip
def test_constructor__takes_one_argument_or_two(
    write_package: WritePackage, start_server: StartServer, lines: str, result: list[str]
) -> None:
    service = (
        "from model_service.pytorch_model_service import PTServingBaseService\n"
        f"class Service(PTServingBaseService):\n{lines}\n"
        "    def _inference(self, data):\n"
        "        return [each.rpartition('/')[2] for each in (self.model_name, self.model_path, *self.got)]\n"
    )
    folder = write_package(service, PYTORCH, weights__pth="x", label__json="{}")
    expected = ["tiny", "weights.pth", *result]
    got = start_server(folder).ready().post({}).json()
    assert [got[0] or "tiny", *got[1:]] == expected


@pytest.mark.parametrize(
    ("config", "base", "files", "name", "several"),
    [
        (PYTORCH, "PTServingBaseService", ("a.pth", "label.json", "LICENSE", "b.pkl"), "a.pth", False),
        (PYTORCH, "PTServingBaseService", ("label.json", "b.pkl", "x.onnx"), "b.pkl", True),
        (PYTORCH, "PTServingBaseService", ("b.pth", "a.pt"), "a.pt", True),
        (PYTORCH, "PTServingBaseService", ("only.dat",), "only.dat", False),
        (PYTORCH, "PTServingBaseService", ("one.dat", "two.dat"), "", False),
        (XGBOOST, "XgSklServingBaseService", ("m.m", "label.json"), "m.m", False),
        (XGBOOST, "XgSklServingBaseService", ("m.json", "readme.txt", "version.json"), "m.json", False),
        (XGBOOST, "XgSklServingBaseService", ("m.onnx", "label.json", "version.json"), "m.onnx", False),
        ({"model_type": "Custom"}, "SingleNodeService", ("model.h5", "version.json"), "model.h5", False),
        (XGBOOST, "XgSklServingBaseService", ("m.ubj", "features.json"), "m.ubj", False),
        (TENSORFLOW, "TfServingBaseService", ("model.h5",), "", False),
        (TENSORFLOW, "PTServingBaseService", ("a.pth",), "", False),
        ({"model_type": "MindSpore"}, "SingleNodeService", ("a.ckpt",), "", False),
        ({"model_type": "Caffe"}, "CaffeBaseService", ("a.caffemodel",), "", False),
        ({"model_type": "Custom"}, "TfServingBaseService", ("model.h5",), "", False),
        ({"model_type": "Custom"}, "SingleNodeService", ("model.h5",), "model.h5", False),
    ],
)
def test_model_path__is_the_model_file_or_the_folder_by_type(
    write_package: WritePackage,
    start_server: StartServer,
    config: Any,
    base: str,
    files: tuple[str, ...],
    name: str,
    several: bool,
) -> None:
    service = f"from model_service import {base}" + ECHO.format(base=base, result="{'path': self.model_path}")
    folder = write_package(service, config, **{each.replace(".", "__"): "x" for each in files})
    path = start_server(folder).ready().post({}).json()["path"]
    assert path == str(folder / name if name else folder)
    assert ("the first of the model files" in (folder.parent / "server-0.log").read_text()) == several


def test_pytorch__runs_the_model_on_each_value_by_default(
    write_package: WritePackage, start_server: StartServer
) -> None:
    service = """
from model_service.pytorch_model_service import PTServingBaseService
class Service(PTServingBaseService):
    def __init__(self, model_name, model_path):
        super(Service, self).__init__(model_name, model_path)
        assert self.model is None and self.ping() is None and self.signature() == {}
        self.model = len
"""
    assert start_server(write_package(service)).ready().post({"a": "xyz", "b": []}).json() == {"a": 3, "b": 0}


TEXT = """
import collections, json
from model_service.python_model_service import XgSklServingBaseService
class Service(XgSklServingBaseService):
    def __init__(self, model_path): pass
    def _preprocess(self, data):
        request = json.loads(data, object_pairs_hook=collections.OrderedDict)
        assert request["data"] == data["data"] == data.get("data") and self._read_data(data) == request
        assert data.get("nothing") is None and list(data.keys()) == list(request) and "data" in data
        return [sum(row.values()) for row in request["data"]["req_data"]]
    def _inference(self, data): return data
"""


@pytest.mark.parametrize("version", ["3.6", "3.11"])
def test_machine_learning_types__get_the_text_and_their_lists_are_wrapped(
    write_package: WritePackage, start_server: StartServer, version: str
) -> None:
    server = start_server(write_package(TEXT, XGBOOST), python=python(version)).ready()
    request = {"meta": {"uuid": "7"}, "data": {"req_data": [{"a": 1, "b": 2.5}, {"a": 3, "b": 4}]}}
    answers = [{"predictresult": 3.5}, {"predictresult": 7}]
    assert server.post(request).json() == {"meta": {"uuid": "7"}, "data": {"resp_data": answers}}
    del request["meta"]
    assert server.post(request).json() == {"data": {"resp_data": answers}}


def test_machine_learning_types__load_the_model_and_predict_by_default(
    write_package: WritePackage, start_server: StartServer
) -> None:
    service = "from model_service.python_model_service import XgSklServingBaseService as Base\nclass S(Base): pass"
    folder = write_package(service, XGBOOST)
    (folder / "adder.pkl").write_text(json.dumps("adder"))
    (folder / "joblib.py").write_text(
        "import json\nclass Adder:\n    def predict(self, rows): return [sum(row) for row in rows]\n"
        "def load(path):\n    assert json.load(open(path)) == 'adder'\n    return Adder()\n"
    )
    request = {"data": {"req_data": [{"b": 1, "a": 2.5}]}}
    answer = start_server(folder).ready().post(request).json()
    assert answer == {"data": {"resp_data": [{"predictresult": 3.5}]}}


def test_sklearn_externals__are_found_under_their_own_names(
    write_package: WritePackage, start_server: StartServer
) -> None:
    service = (
        "from sklearn.externals import joblib\nimport sklearn.externals.joblib as again\nimport joblib as own\n"
        "from model_service.model_service import SingleNodeService"
        + ECHO.format(base="SingleNodeService", result="[joblib.NAME, again is own, own.__spec__.name]")
    )
    folder = write_package(service, joblib__py="NAME = 'joblib'")
    (folder / "sklearn").mkdir()
    (folder / "sklearn" / "__init__.py").touch()
    (folder / "sklearn" / "externals").mkdir()
    (folder / "sklearn" / "externals" / "__init__.py").touch()
    assert start_server(folder).ready().post({}).json() == ["joblib", True, "joblib"]


def test_class__is_the_one_without_a_sub_class(write_package: WritePackage, start_server: StartServer) -> None:
    service = """
from model_service.pytorch_model_service import PTServingBaseService
class Middle(PTServingBaseService):
    def _inference(self, data): return self.name
class Service(Middle):
    name = "leaf"
"""
    assert start_server(write_package(service)).ready().post({}).body == b"leaf"


def test_class__may_be_imported_from_another_module_of_the_package(
    write_package: WritePackage, start_server: StartServer
) -> None:
    other = "from model_service.pytorch_model_service import PTServingBaseService" + ECHO.format(
        base="PTServingBaseService", result="'other'"
    )
    folder = write_package("from other import Service", other__py=other)
    assert start_server(folder).ready().post({}).body == b"other"


def test_text__is_answered_as_json_where_the_response_is_declared_so(
    write_package: WritePackage, start_server: StartServer
) -> None:
    service = "from model_service import SingleNodeService" + ECHO.format(base="SingleNodeService", result="'图'")
    config = {"model_type": "Custom", "apis": [{"url": "/", "response": {"Content-type": "applicaton/json"}}]}
    answer = start_server(write_package(service, config)).ready().post({})
    assert answer.json() == "图"
    assert answer.body == '"图"'.encode()


def test_query__is_added_to_the_request(write_package: WritePackage, start_server: StartServer) -> None:
    service = "from model_service import SingleNodeService" + ECHO.format(base="SingleNodeService", result="data")
    server = start_server(write_package(service)).ready()
    assert server.post({"a": 1}, path="/?a=2&b=K%C3%B6ln").json() == {"a": 1, "b": "Köln"}


def test_config__can_be_given_by_the_environment(write_package: WritePackage, start_server: StartServer) -> None:
    service = "from model_service import SingleNodeService" + ECHO.format(base="SingleNodeService", result="[1]")
    folder = write_package(service)
    (folder / "config.json").write_text("{ // a comment\n")
    config = json.dumps({"apis": [{"url": "/predict"}], "health": {"url": "/ok"}})
    server = start_server(folder, MODEL_CONFIG=config).ready("/ok")
    assert server.post({}, path="/predict").json() == [1]
