#!/bin/bash
# Molecular signatures from H&E on SLURM: one job per slide where slides are independent, each step after the one before.
#
#   bash submit.sh bundles.csv results [4]      (bundles.csv: columns sample, patient, bundle; 4 folds)
#
# Options of sbatch that your site needs, such as --partition and --account, go into SBATCH_PARTITION, SBATCH_ACCOUNT, ...
# Further options of single steps go into LABEL, TRAIN_AE and TRAIN.
set -euo pipefail
BUNDLES=$1 OUT=$2 FOLDS=${3:-4}
HERE=$(cd "$(dirname "$0")" && pwd)
SLIDES=$(grep -c '[^[:space:]]' "$BUNDLES")
LAST=$((SLIDES - 2)) # one line is the header, numbers begin at 0
mkdir -p "$OUT/log"
after=""

step() { # step NAME SBATCH-OPTIONS -- COMMAND...
  local name=$1 options=()
  shift
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  # a step begins when all jobs of the one before have ended well
  after=$(sbatch --parsable --job-name="spatialsig-$name" --output="$OUT/log/$name-%A-%a.out" \
    ${after:+--dependency=afterok:$after} "${options[@]}" "$HERE/job.sh" "$@")
  echo "$name: job $after"
}

step import --array="0-$LAST" --mem=16G -- import "$BUNDLES" --out "$OUT/stores"
step split --mem=8G -- split "$OUT/stores" --n-folds "$FOLDS"
step train-ae --cpus-per-task=8 --mem=32G -- train-ae "$OUT/stores" --out "$OUT/models/autoencoder" --overwrite ${TRAIN_AE:-}
step embed --array="0-$LAST" --mem=16G -- embed "$OUT/stores" --model "$OUT/models/autoencoder"
step label --array="0-$LAST" --mem=16G -- label "$OUT/stores" ${LABEL:-}
step train --cpus-per-task=8 --mem=32G ${GPU:+--gres=gpu:1} -- train "$OUT/stores" --out "$OUT/models/vit" --overwrite ${TRAIN:-}
step predict --array="0-$LAST" --mem=16G ${GPU:+--gres=gpu:1} -- predict "$OUT/stores" --model "$OUT/models/vit"
step evaluate --mem=32G -- evaluate "$OUT/stores" --model "$OUT/models/vit" --out "$OUT/evaluation.csv"
