"""The forms in which clusters run a study leave the same stores as the calls of a notebook."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.slide.test_each import assert_same, contents

import spatialsig as sp

EXAMPLES = Path(__file__).parents[1] / "examples"
LABEL = "--patch-px 28 --um-per-px 2 --min-cells 3"
TRAIN_AE = "--max-epochs 1 --n-latent 4 --set hidden=[8]"
TRAIN = "--max-epochs 1 --batch-size 16"
# what stands for SLURM: jobs run at once, one index of an array after another
SBATCH = """#!/bin/bash
set -euo pipefail
last=""
while [[ $1 == --* ]]; do case $1 in --array=*) last=${1#*-}; last=${1##*-} ;; esac; shift; done
script=$1; shift
if [ -n "$last" ]; then
  for k in $(seq "$last" -1 0); do SLURM_ARRAY_TASK_ID=$k bash "$script" "$@" >&2; done
else
  bash "$script" "$@" >&2
fi
echo 7
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bundles")
    sp.datasets.synthetic_xenium(place, n_slides=3, size_um=260.0, seed=3)
    genes = sp.io.read_signatures("seed")
    (place / "sets.csv").write_text("signature,gene\n" + "".join(f"Immune_T,{gene}\n" for gene in genes["Immune_T"]))
    return place / "bundles.csv"


@pytest.fixture(scope="module")
def by_calls(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the calls of a notebook leave."""
    out, sets = tmp_path_factory.mktemp("calls"), bundles.with_name("sets.csv")
    cohort = sp.Cohort.from_bundles(bundles, out / "stores")
    sp.pp.filter_cells(cohort)
    sp.pp.split(cohort, n_folds=3)
    sp.pp.highly_variable_genes(cohort)
    autoencoder = sp.tl.train_autoencoder(cohort, signatures=sets, max_epochs=1, n_latent=4, hidden=(8,))
    sp.tl.embed_cells(cohort, autoencoder)
    sp.pp.make_patches(cohort, patch_px=28, um_per_px=2.0)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, sets)
    sp.tl.aggregate_patches(cohort, min_cells=3)
    sp.tl.predict(cohort, sp.tl.train_vit(cohort, max_epochs=1, batch_size=16))
    return contents(cohort)


def environment(*paths: Path) -> dict[str, str]:
    found = ":".join(map(str, [*paths, Path(sys.executable).parent, os.environ["PATH"]]))
    return {**os.environ, "PATH": found}


def assert_as_by_calls(out: Path, by_calls: dict[str, object]) -> None:
    ours = contents(sp.Cohort(out / "stores"))
    assert ours.keys() == by_calls.keys()
    for place, values in by_calls.items():
        assert_same(values, ours[place])
    assert (out / "evaluation.csv").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_slurm(bundles: Path, by_calls: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(SBATCH)
    sbatch.chmod(0o755)
    sets = f"--signatures {bundles.with_name('sets.csv')}"
    options = {"LABEL": f"{LABEL} {sets}", "TRAIN_AE": f"{TRAIN_AE} {sets}", "TRAIN": TRAIN}
    command = ["bash", EXAMPLES / "slurm" / "submit.sh", bundles, tmp_path / "out", "3"]
    said = subprocess.run(
        command, env=environment(tmp_path / "bin") | options, check=True, capture_output=True, text=True
    )
    assert "evaluate: job 7" in said.stdout
    assert_as_by_calls(tmp_path / "out", by_calls)


def snakemake(bundles: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    options = {
        "bundles": bundles, "out": out, "n_folds": 3, "label": LABEL, "train_ae": TRAIN_AE, "train": TRAIN,
        "signatures": bundles.with_name("sets.csv"),
    }  # fmt: skip
    folder = EXAMPLES / "snakemake"
    command = [sys.executable, "-m", "snakemake", "-s", folder / "Snakefile", "--configfile", folder / "config.yaml", "--cores", "2", "--directory", out.parent]  # fmt: skip
    command += [*more, "--config", *(f"{name}={value}" for name, value in options.items())]
    return subprocess.run(command, env=environment(), check=True, capture_output=True, text=True)


def test_snakemake_plans_one_job_per_slide(bundles: Path, tmp_path: Path) -> None:
    pytest.importorskip("snakemake")
    plan = snakemake(bundles, tmp_path / "out", "--dry-run").stdout
    for rule, n in {"import_slide": 3, "split": 1, "train_autoencoder": 1, "embed": 3, "label": 3, "train": 1, "predict": 3, "evaluate": 1}.items():  # fmt: skip
        assert [rule, str(n)] in [line.split() for line in plan.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_snakemake(bundles: Path, by_calls: dict[str, object], tmp_path: Path) -> None:
    pytest.importorskip("snakemake")
    snakemake(bundles, tmp_path / "out")
    assert_as_by_calls(tmp_path / "out", by_calls)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_dask_cluster(bundles: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dask_cluster.py"
    shutil.copy(EXAMPLES / "dask_cluster.py", copy)
    small = copy.read_text().replace(
        "sp.pp.make_patches(cohort)", "sp.pp.make_patches(cohort, patch_px=28, um_per_px=2.0)"
    )
    small = small.replace("sp.tl.aggregate_patches(cohort)", "sp.tl.aggregate_patches(cohort, min_cells=3)")
    small = small.replace("train_vit(cohort, ", "train_vit(cohort, max_epochs=1, batch_size=16, ")
    copy.write_text(small)
    command = [sys.executable, copy, bundles, tmp_path / "out", "--workers", "2", "--local", "--n-folds", "3", "--signatures", bundles.with_name("sets.csv")]  # fmt: skip
    subprocess.run(command, env=environment(), check=True, capture_output=True, text=True)
    assert "signatures_pred" in sp.Cohort(tmp_path / "out" / "stores")["S3"].tables
    assert (tmp_path / "out" / "evaluation.csv").is_file()
