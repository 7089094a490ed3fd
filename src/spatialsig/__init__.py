"""Learn molecular signatures from H&E, in scverse style.

>>> import spatialsig as sp
>>> sorted(name for name in sp.__all__ if not name.startswith("_"))
['AugmentConfig', 'Cohort', 'TrainerConfig', 'ViTConfig', 'datasets', 'errors', 'io', 'models', 'pl', 'pp', 'register_backbone', 'settings', 'tl']
"""

import os
from importlib.metadata import version
from typing import TYPE_CHECKING

import lazy_loader

from spatialsig._settings import settings

if TYPE_CHECKING:
    from spatialsig import datasets, errors, io, models, pl, pp, tl
    from spatialsig.cohort import Cohort
    from spatialsig.nn.augment import AugmentConfig
    from spatialsig.nn.backbones import register_backbone
    from spatialsig.nn.vit import ViTConfig
    from spatialsig.train.trainer_config import TrainerConfig

# Threads of a network that wait for each other by spinning make it many times slower on cores that others use too. OpenMP reads
# this once, when torch is loaded; who has said how to wait is obeyed.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"  # some µs, then they sleep; 300,000 by default

__version__ = version("spatialsig")
__all__ = [
    "AugmentConfig",
    "Cohort",
    "TrainerConfig",
    "ViTConfig",
    "__version__",
    "datasets",
    "errors",
    "io",
    "models",
    "pl",
    "pp",
    "register_backbone",
    "settings",
    "tl",
]

# rooms load on first use, so that a bare import stays light
__getattr__, _, _ = lazy_loader.attach(
    __name__,
    submodules=["datasets", "errors", "io", "models", "pl", "pp", "tl"],
    submod_attrs={
        "cohort": ["Cohort"],
        "nn.augment": ["AugmentConfig"],
        "nn.backbones": ["register_backbone"],
        "nn.vit": ["ViTConfig"],
        "train.trainer_config": ["TrainerConfig"],
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
