"""Modules that a package's code imports but that neither the package nor its installed requirements provide."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator, Sequence

_NAMED = {
    "attr": ("attrs",),
    "bs4": ("beautifulsoup4",),
    "Crypto": ("pycryptodome", "pycrypto"),
    "cv2": ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless"),
    "dateutil": ("python-dateutil",),
    "docx": ("python-docx",),
    "fitz": ("pymupdf",),
    "google": ("protobuf",),
    "jwt": ("pyjwt",),
    "Levenshtein": ("levenshtein", "python-levenshtein"),
    "MySQLdb": ("mysqlclient",),
    "OpenSSL": ("pyopenssl",),
    "paddle": ("paddlepaddle", "paddlepaddle-gpu"),
    "PIL": ("pillow", "pillow-simd"),
    "pkg_resources": ("setuptools",),
    "pptx": ("python-pptx",),
    "serial": ("pyserial",),
    "skimage": ("scikit-image",),
    "sklearn": ("scikit-learn", "sklearn"),
    "yaml": ("pyyaml",),
    "zmq": ("pyzmq",),
}
"""Modules whose name differs from that of the distribution that provides them."""
_BRING = {
    "catboost": "numpy pandas scipy matplotlib six",
    "gensim": "numpy scipy smart_open",
    "imageio": "numpy PIL",
    "keras": "numpy h5py",
    "librosa": "numpy scipy sklearn joblib numba soundfile",
    "lightgbm": "numpy scipy",
    "matplotlib": "numpy PIL dateutil pyparsing packaging",
    "mindspore": "numpy scipy PIL google psutil",
    "onnx": "numpy google",
    "onnxruntime": "numpy google",
    "opencv": "numpy",
    "paddlepaddle": "numpy PIL google requests",
    "pandas": "numpy dateutil pytz",
    "requests": "urllib3 idna certifi",
    "scikit-image": "numpy scipy PIL networkx imageio tifffile",
    "scikit-learn": "numpy scipy joblib threadpoolctl",
    "scipy": "numpy",
    "spacy": "numpy requests tqdm thinc srsly",
    "tensorflow": "numpy h5py keras google absl six wrapt",
    "timm": "torch torchvision numpy PIL yaml",
    "torch": "numpy sympy networkx jinja2 filelock fsspec typing_extensions",
    "torchaudio": "torch numpy",
    "torchvision": "torch numpy PIL",
    "transformers": "numpy requests yaml tqdm regex tokenizers safetensors huggingface_hub packaging filelock",
    "ultralytics": "torch torchvision numpy PIL cv2 yaml requests scipy matplotlib pandas",
    "xgboost": "numpy scipy",
}
"""Modules that come with a distribution, by the beginning of its name."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SEPARATORS = re.compile(r"[-_.]+")
_CODE = (".py", ".so", ".pyd")
_GUARDS = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


def imported(source: bytes) -> set[str]:
    """The modules that code imports, except optional ones (in ``try``) and its own relative ones.

    Raises SyntaxError; ValueError and RecursionError for text that is no code at all.
    """
    return set(import_lines(source))


def import_lines(source: bytes) -> dict[str, int]:
    """The same, each with the first line that imports it."""
    found: dict[str, int] = {}
    for name, line in _imports(ast.parse(source)):
        found.setdefault(name, line)
    return found


def _imports(node: ast.AST) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((one.name, child.lineno) for one in child.names)
        elif isinstance(child, ast.ImportFrom):
            if not child.level and child.module:
                yield child.module, child.lineno
        elif isinstance(child, ast.Try) and any(map(_is_guard, child.handlers)):
            for one in (*child.orelse, *child.finalbody):
                yield from _imports(ast.Module([one], []))
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for one in child.orelse:
                yield from _imports(ast.Module([one], []))
        else:
            yield from _imports(child)


def _is_guard(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    return any(isinstance(one, ast.Name) and one.id in _GUARDS for one in ast.walk(handler.type))


def modules_of(files: Collection[str]) -> set[str]:
    """The modules that files and folders of these names would be on the import path."""
    names = {name.rstrip("/") for name in files}
    return {name.partition(".")[0] for name in names if name.endswith(_CODE) or "." not in name}


def missing(names: Collection[str], installed: Sequence[str], there: Collection[str]) -> list[str]:
    """The imported modules that nothing provides, in order.

    ``installed`` are requirements in pip's form; ``there`` are modules that exist without them. If submodules of a
    module are among them, every imported submodule of it must be.
    """
    found = (_NAME.match(one.rpartition("/")[2].strip()) for one in installed)
    distributions = {_plain(one[0]) for one in found if one is not None}
    brought = {
        module
        for name, modules in _BRING.items()
        if any(one == name or one.startswith(f"{name}-") for one in distributions)
        for module in modules.split()
    }
    packages = {name.partition(".")[0] for name in there if "." in name}

    def is_brought(name: str) -> bool:
        top = name.partition(".")[0]
        if top in there:
            return top not in packages or name in there
        if top in sys.stdlib_module_names or top in brought or distributions.intersection(_NAMED.get(top, ())):
            return True
        return any(one == _plain(top) or one.startswith(f"{_plain(top)}-") for one in distributions)

    wanted = {name if name.partition(".")[0] in packages else name.partition(".")[0] for name in names}
    return sorted(name for name in wanted if not is_brought(name))


def _plain(name: str) -> str:
    return _SEPARATORS.sub("-", name).lower()
