"""Molecular signatures from H&E on a dask cluster: the calls of a notebook, several slides at once.

python dask_cluster.py bundles.csv results --workers 20                   jobs of SLURM, by dask-jobqueue
python dask_cluster.py bundles.csv results --workers 2 --local            processes of this machine
"""

import argparse
from pathlib import Path

from distributed import Client, LocalCluster

import spatialsig as sp


def cluster(workers: int, *, local: bool) -> LocalCluster:
    """Cluster whose workers do one slide at a time; all of them see the file system of the stores."""
    if local:
        return LocalCluster(n_workers=workers, threads_per_worker=1)
    from dask_jobqueue import SLURMCluster

    jobs = SLURMCluster(cores=4, processes=1, memory="16GB", walltime="04:00:00")  # queue=..., account=...
    jobs.adapt(minimum=0, maximum=workers)
    return jobs


def run(bundles: Path, out: Path, signatures: str, n_folds: int) -> None:
    """Bundles to an evaluation; every call uses the client that is active."""
    cohort = sp.Cohort.from_bundles(bundles, out / "stores")
    sp.pp.filter_cells(cohort)
    sp.pp.split(cohort, n_folds=n_folds)
    sp.pp.highly_variable_genes(cohort)
    autoencoder = sp.tl.train_autoencoder(cohort, signatures=signatures, run_dir=out / "training" / "autoencoder")
    sp.tl.embed_cells(cohort, autoencoder)
    sp.pp.make_patches(cohort)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, signatures)
    sp.tl.aggregate_patches(cohort)
    model = sp.tl.train_vit(cohort, run_dir=out / "training" / "vit")
    model.save(out / "models" / "vit", overwrite=True)
    sp.tl.predict(cohort, model, skip_done=True)
    sp.tl.evaluate(cohort, model).to_csv(out / "evaluation.csv", index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, help="csv with columns sample, patient, bundle")
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--signatures", default="tumour_microenvironment")
    parser.add_argument("--n-folds", type=int, default=4)
    options = parser.parse_args()
    with cluster(options.workers, local=options.local) as found, Client(found):
        run(options.bundles, options.out, options.signatures, options.n_folds)
