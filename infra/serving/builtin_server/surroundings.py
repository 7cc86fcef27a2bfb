"""What packages find around them on the original platform: its modules, and ``/home/mind/model`` as their folder."""

import ast
import importlib
import importlib.machinery
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, cast

# Imported before any code of the package, so that a stub folder "model_service", which authors keep next to their code
# for local tests, never replaces the real base classes.
import model_service
import model_service.log

PLATFORM_MODULES = Path(__file__).resolve().parents[1] / "platform_modules"
"""``log``, ``metric``, ``mms`` ...: found last, so that a package's own modules of these names take precedence."""
HOME = "/home/mind/model"
"""The folder of every package on the original platform; packages have it written in their code."""
OLD_SKLEARN = "sklearn.externals."
"""What scikit-learn brought along before 0.23 is found under its own name."""


def prepare_imports(folder: Path) -> None:
    """Let the code in ``folder`` import its own modules, those of the platform, and itself as the package ``model``."""
    sys.path.insert(0, str(folder))
    sys.path.append(str(PLATFORM_MODULES))
    # A stub folder of the package may have more modules than the platform's.
    cast(Any, model_service.__path__).append(str(folder / "model_service"))
    sys.meta_path.insert(0, _PackageFinder(folder))
    sys.meta_path.append(_LastFinder(folder))


def import_module(folder: Path, path: Path) -> ModuleType:
    """Import one file of the package by its own name. Raises ImportError, and what its code raises."""
    loader = PackageLoader(folder, path.stem, str(path))
    spec = importlib.util.spec_from_file_location(path.stem, str(path), loader=loader)
    if spec is None:
        raise ImportError("%s is not a Python module" % path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # pickled models refer to their classes by this name
    loader.exec_module(module)
    return module


class PackageLoader(importlib.machinery.SourceFileLoader):
    """Loads a module of the package; texts in it that name the platform's folder name the package's instead."""

    def __init__(self, folder: Path, name: str, path: str) -> None:
        super().__init__(name, path)
        self._folder = str(folder)

    def source_to_code(self, data: Any, path: Any, **options: Any) -> Any:  # type: ignore[override]
        """Compile the source. Raises SyntaxError."""
        if isinstance(data, bytes) and HOME.encode() in data:
            tree = _Homes(self._folder).visit(compile(data, path, "exec", ast.PyCF_ONLY_AST, dont_inherit=True))
            return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)
        return super().source_to_code(data, path, **options)

    def path_stats(self, path: Any) -> Any:
        """Let nothing be cached: the code depends on the folder, and many servers share it."""
        raise OSError("not cached")


class _Homes(ast.NodeTransformer):
    """Writes the package's folder for the platform's into texts."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def visit_Constant(self, node: Any) -> Any:
        if isinstance(node.value, str):
            node.value = self._own(node.value)
        return node

    def visit_Str(self, node: Any) -> Any:
        """On Python 3.6 and 3.7."""
        node.s = self._own(node.s)
        return node

    def _own(self, text: str) -> str:
        if text == HOME or text.startswith(HOME + "/"):
            return self._folder + text[len(HOME) :]
        return text


class _PackageFinder(MetaPathFinder):
    """Finds the package's own modules."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inside = str(folder) + "/"

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """The module of the package with this name; None for every other."""
        places = [str(self._folder)] if path is None else [one for one in path if (one + "/").startswith(self._inside)]
        spec = importlib.machinery.PathFinder.find_spec(name, places) if places else None
        if spec is None or spec.origin is None or type(spec.loader) is not importlib.machinery.SourceFileLoader:
            return None
        spec.loader = PackageLoader(self._folder, name, spec.origin)
        return spec


class _LastFinder(MetaPathFinder):
    """Finds what nobody else has: the package's folder as ``model``, and what scikit-learn once brought along."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """The module with this name, or None."""
        if name == "model":
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(self._folder)]
            return spec
        if name.startswith(OLD_SKLEARN):
            found = _find(name[len(OLD_SKLEARN) :])
            return importlib.machinery.ModuleSpec(name, _Alias(found)) if found else None
        return None


def _find(name: str) -> Optional[str]:
    try:
        return name if importlib.util.find_spec(name) is not None else None
    except (ImportError, ValueError):
        return None


class _Alias(Loader):
    """Loads a module under a second name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: Any = None

    def create_module(self, spec: Any) -> ModuleType:
        """The module by its own name."""
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; only its own name is given back to it."""
        module.__spec__ = self._spec
