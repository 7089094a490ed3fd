"""Networks of the user's own that a configuration or a command names, imported from where they stand.

Floor 11, above report. Used by pipeline/run_config, cli.
"""

from __future__ import annotations

import importlib
import re
import sys
from typing import TYPE_CHECKING

from spatialsig._checks import did_you_mean
from spatialsig.errors import InputError
from spatialsig.nn.backbones import LIBRARIES, register_backbone

if TYPE_CHECKING:
    from pathlib import Path

_OWN = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)")


def use_backbone(name: object, *, folder: Path) -> None:
    """Register the function ``module:function``, which builds a network, as the backbone of that name; other names are left alone.

    The module is looked for in ``folder``, then where Python finds all others. Only what a person named is imported: never what a
    model directory says.

    Raises
    ------
    InputError
        If the module cannot be imported or has no such function.
    """
    own = _OWN.fullmatch(name) if isinstance(name, str) else None
    if own is None or own["module"] in LIBRARIES:
        return
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(own["module"])
    except ImportError as error:
        libraries = did_you_mean(own["module"], LIBRARIES)
        msg = (
            f"backbone {name!r}: {error}.{libraries} Wanted MODULE:FUNCTION of a module beside the configuration (or in the folder of "
            f"work) or one that is installed, or a name that begins with one of {[f'{library}:' for library in LIBRARIES]}."
        )
        raise InputError(msg) from error
    finally:
        sys.path[:] = before
    factory = getattr(module, own["function"], None)
    if not callable(factory):
        msg = f"backbone {name!r}: module {own['module']!r} has no function {own['function']!r}.{did_you_mean(own['function'], vars(module))}"
        raise InputError(msg)
    register_backbone(str(name), factory)
