"""The whole job from one configuration file: what ``spatialsig run`` and ``spatialsig demo`` do."""

from .config import RunConfig, read_config
from .demo import run_demo
from .report_of_run import report_of
from .run import run

__all__ = ["RunConfig", "read_config", "report_of", "run", "run_demo"]
