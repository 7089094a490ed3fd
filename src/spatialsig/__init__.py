"""Learn molecular signatures from H&E, in scverse style.

>>> import spatialsig as sp
>>> sorted(name for name in sp.__all__ if not name.startswith("_"))
['Cohort', 'datasets', 'io', 'models', 'pl', 'pp', 'settings', 'tl']
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

import lazy_loader

from spatialsig._settings import settings

if TYPE_CHECKING:
    from spatialsig import datasets, io, models, pl, pp, tl
    from spatialsig.cohort import Cohort

__version__ = version("spatialsig")
__all__ = ["Cohort", "__version__", "datasets", "io", "models", "pl", "pp", "settings", "tl"]

# rooms load on first use, so that a bare import stays light
__getattr__, _, _ = lazy_loader.attach(
    __name__, submodules=["datasets", "io", "models", "pl", "pp", "tl"], submod_attrs={"cohort": ["Cohort"]}
)


def __dir__() -> list[str]:
    return sorted(__all__)
