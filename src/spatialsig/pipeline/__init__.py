"""The whole job from one configuration file: what ``spatialsig run`` and ``spatialsig demo`` do.

Floor 11: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide,
expression, inference, labels, evaluation, io, pl, pp, tl, atlas, datasets, maps, cohort, report.
"""

from .demo import run_demo
from .estimate import Estimate, estimate, usual_config
from .own_backbones import use_backbone
from .report_of_run import report_of
from .run import check_manifest, failed_slides, finished_steps, plan, progress_of, run
from .run_config import RunConfig, read_config
from .run_template import write_template

__all__ = [
    "Estimate",
    "RunConfig",
    "check_manifest",
    "estimate",
    "failed_slides",
    "finished_steps",
    "plan",
    "progress_of",
    "read_config",
    "report_of",
    "run",
    "run_demo",
    "use_backbone",
    "usual_config",
    "write_template",
]
