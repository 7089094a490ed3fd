#!/bin/bash
# One command of spatialsig; in a job of an array, on the slide of its number.
set -euo pipefail
exec spatialsig "$@" ${SLURM_ARRAY_TASK_ID:+--index "$SLURM_ARRAY_TASK_ID"} --quiet
