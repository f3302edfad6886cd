"""Modules that are read from the card and into memory only when something in them is used."""

import sys
from importlib import import_module
from types import ModuleType


def load(name: str) -> None:
    """Whoever imports `name` from now on gets a stand-in that imports it at its first use.

    Not importlib.util.LazyLoader: before Python 3.12 each further `import` statement ends its laziness.
    """
    if name in sys.modules:
        return
    stand_in = ModuleType(name)

    def use(attribute: str) -> object:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(import_module(name), attribute)

    vars(stand_in)["__getattr__"] = use
    sys.modules[name] = stand_in
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(import_module(parent), child, stand_in)
