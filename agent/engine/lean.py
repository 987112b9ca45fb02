# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps libraries from loading what the agent never uses: some MiB that a router would hold for nothing.

The package imports docker-py here, before any module of ours does.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def load(name: str, without: Mapping[str, Mapping[str, Any]]) -> None:
    """Imports a module. Who imports one of `without` meanwhile gets a module with these names only, unless the real one is
    loaded already; a version of a library that needs more of it is loaded with all it wants.
    """
    absent = without.keys() - sys.modules.keys()
    for each in absent:
        sys.modules[each] = ModuleType(each)
        vars(sys.modules[each]).update(without[each])
    try:
        importlib.import_module(name)
        return
    except (ImportError, AttributeError):
        pass
    finally:
        for each in absent:
            del sys.modules[each]
    importlib.import_module(name)


class _Package(ModuleType):
    """Its `__init__` runs once somebody asks for one of its names; modules within it are imported without that."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if importlib.util.find_spec(f"{self.__name__}.{name}"):
            return importlib.import_module(f"{self.__name__}.{name}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        if self.__spec__ is not None and self.__spec__.loader is not None:
            self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def without_init(name: str) -> None:
    """Modules of that package can be imported without what its `__init__` imports, unless that has run."""
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None or spec.submodule_search_locations is None:
        return
    package = _Package(name)
    package.__spec__, package.__path__ = spec, spec.submodule_search_locations
    package.__file__ = spec.origin
    sys.modules[name] = package


class _Utf8(ModuleType):
    """As much of charset_normalizer as requests uses.

    requests loads one with its first import (requests/compat.py) and asks it for the encoding of texts that name none. The
    engine speaks JSON, which is UTF-8 (RFC 8259, 8.1).
    """

    __version__ = "3.0.0"  # requests checks that it is one it knows

    @staticmethod
    def detect(data: bytes) -> dict[str, object]:
        del data
        return {"encoding": "utf-8", "confidence": 1.0, "language": ""}


if "requests" not in sys.modules:
    sys.modules.setdefault("charset_normalizer", _Utf8("charset_normalizer"))
# docker-py's __init__ loads another client, of objects
without_init("docker")
load(
    "docker.api.client",
    {
        "importlib.metadata": {
            "version": lambda name: "0"
        },  # of h2, which dockerd does not speak, for urllib3
        "zipfile": {"is_zipfile": lambda path: False},  # where requests would look for certificates as well
    },
)
