# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps libraries from loading modules that the agent never uses, which would cost a router several MiB.

The package imports docker-py here, before any module of ours does.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _StandIn(ModuleType):
    """A module with the given names. When another name is requested, it turns into the real module, so that a new
    release of the library still finds what it needs.
    """

    def __init__(self, spec: ModuleSpec, names: Mapping[str, Any]) -> None:
        super().__init__(spec.name)
        self.__spec__, self.__loader__, self.__file__ = spec, spec.loader, spec.origin
        if spec.submodule_search_locations is not None:
            self.__path__ = (
                spec.submodule_search_locations
            )  # its submodules can be imported without running its `__init__`
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # each `from ... import` asks this to see whether it is a package
            raise AttributeError(name)
        within = f"{self.__name__}.{name}"
        if hasattr(self, "__path__") and importlib.util.find_spec(within):
            return importlib.import_module(within)
        real = sys.modules.setdefault(self.__name__, self)
        self.__class__ = ModuleType  # type: ignore[assignment]
        if real is self:
            importlib.reload(self)
        else:  # someone else has loaded the real module meanwhile
            vars(self).update(vars(real))
        return getattr(self, name)


def stand_in(name: str, **names: Any) -> ModuleType | None:
    """Makes imports of the module return one with these names, and of a package one that does not run its `__init__`,
    until something else is requested. None if the module is loaded already, or not installed.
    """
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None:
        return None
    made = sys.modules[name] = _StandIn(spec, names)
    # set the submodule as an attribute of its package, as the import system does
    parent, _, child = name.rpartition(".")
    if parent:
        vars(sys.modules[parent]).setdefault(child, made)
    return made


def load(name: str, without: Mapping[str, Mapping[str, Any]]) -> None:
    """Imports a module. Modules in `without` are replaced by stand-ins with these names during the import."""
    made = {each: stand_in(each, **names) for each, names in without.items()}
    try:
        importlib.import_module(name)
        return
    except Exception:  # noqa: BLE001, S110 - a release that uses these names differently gets the real modules
        pass
    finally:
        for each, module in made.items():
            # keep a stand-in that has become the real module
            if module is not None and isinstance(sys.modules.get(each), _StandIn):
                del sys.modules[each]
    importlib.import_module(name)


def _is_utf8(data: bytes) -> dict[str, object]:
    """What `detect` of chardet and charset_normalizer returns. The engine sends JSON, which is UTF-8 (RFC 8259, 8.1)."""
    del data
    return {"encoding": "utf-8", "confidence": 1.0, "language": ""}


# requests imports one of them (requests/compat.py) for texts without an encoding, and checks its version
for _name, _version in {"chardet": "5.0.0", "charset_normalizer": "3.0.0"}.items():
    if "requests" not in sys.modules:
        stand_in(_name, __version__=_version, detect=_is_utf8)
stand_in("docker")  # its `__init__` would load docker-py's object API too
load(
    "docker.api.client",
    {
        "importlib.metadata": {
            "version": lambda name: "0"
        },  # asked by urllib3 for h2, which dockerd does not support
        # requests would also look for certificates in zip files
        "zipfile": {"is_zipfile": lambda path: False},
    },
)
