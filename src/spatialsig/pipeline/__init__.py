"""The whole job from one configuration file: what ``spatialsig run`` and ``spatialsig demo`` do."""

from .demo import run_demo
from .report_of_run import report_of
from .run import run
from .run_config import RunConfig, read_config

__all__ = ["RunConfig", "read_config", "report_of", "run", "run_demo"]
