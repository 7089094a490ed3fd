"""Calls of every public function, method and setting with one wrong argument: each ends in our error that names it, or works.

python benchmarks/fuzz_arguments.py [--n 5000] [--seed 0] [--json FILE] [--functions NAME ...]
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import spatialdata as sd
import torch
from PIL import Image
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.errors import SpatialsigError
from spatialsig.evaluation.learning_curves import summary_of
from spatialsig.slide.coordinates import full_resolution

mpl.use("Agg")
LIMIT_S = 60
TINY = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
NAMED, UNNAMED, RAW, ACCEPTED, CHANGED, HANGS = "named", "not named", "raw", "accepted", "changed", "does not end"

WRONG: list[Any] = [
    None, True, 0, 1, -1, 1.5, float("nan"), float("inf"), 10**30, "", "no such thing", "a/b", "a::b", "..", "\0",
    "Käse ☃", b"bytes", [], ["a"], [1], {}, {"a": 1}, {"a": ["b"]}, (), object(), np.arange(3.0), np.array(["x", "y"]),
    Path("no/such/place"), {1, 2}, len, pd.DataFrame({"a": [1]}), np.eye(3), 2**63, -(2**70), np.int64(2), 1e-300,
]  # fmt: skip


class NoHub:
    """In place of the library of a hub of models: nothing is sent or fetched."""

    @staticmethod
    def create_repo(repository: str, **_options: Any) -> None:
        """Make nothing."""

    @staticmethod
    def upload_folder(*, repo_id: str, **_options: Any) -> str:
        """Send nothing."""
        return f"https://hub/{repo_id}"

    @staticmethod
    def snapshot_download(source: str, **_options: Any) -> str:
        """Fetch nothing."""
        return source


class NoVitessce:
    """In place of the package of a viewer, which tests do without."""

    SpatialDataWrapper = dict

    class VitessceConfig:
        """A configuration that nothing shows, of one data set."""

        def __init__(self) -> None:
            self.config = {"datasets": [self]}

        @classmethod
        def from_dict(cls, _config: dict[str, Any]) -> NoVitessce.VitessceConfig:
            """Another one."""
            return cls()

        def add_object(self, _wrapper: object) -> None:
            """Add nothing."""


class Study:
    """One small slide with everything that a function may read, and valid calls of all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sys.modules["huggingface_hub"] = NoHub  # type: ignore[assignment]
        sys.modules["vitessce"] = NoVitessce  # type: ignore[assignment]
        slide = sp.datasets.toy(size_um=300)
        slide["table"].obs["cell_type"] = slide["table"].obs["cell_type"].astype("category")
        self.bare = sd.deepcopy(slide)
        self.place = get_transformation(slide["he_image"]).to_affine_matrix(("x", "y"), ("x", "y"))
        sp.pp.split(slide, by="block", n_folds=2, block_um=100, buffer_um=0)
        sp.pp.find_tissue(slide)
        sp.pp.make_patches(slide, patch_px=28, um_per_px=2.0)
        sp.pp.assign_cells(slide)
        sp.tl.score_cells(slide, "seed")
        self.autoencoder = sp.tl.train_autoencoder(slide, signatures="seed", n_latent=4, hidden=(16,), max_epochs=1)
        prototype = {"linear_path": False, "loss": "mse", "hidden": (1024, 256), "n_latent": 32, "denoise": 0.0}
        self.prototype = sp.tl.train_autoencoder(slide, signatures="seed", max_epochs=1, **prototype)
        sp.models.export_seed_autoencoder(self.prototype, folder / "prototype")
        sp.tl.embed_cells(slide, self.autoencoder)
        sp.tl.aggregate_patches(slide, min_cells=3)
        self.model = sp.tl.train_vit(slide, size=TINY, max_epochs=1)
        sp.tl.predict(slide, self.model)
        sp.tl.embed_patches(slide, self.model, key_added="features")
        sp.tl.attention(slide, self.model, signatures=["Immune_T"], patches=[0, 1], n_steps=2)
        sp.tl.signature_map(slide, self.model, stride_um=56.0)
        sp.tl.predict_cells(slide, self.model)
        held_out = sd.deepcopy(slide)
        held_out.attrs["spatialsig"] |= {"sample": "held out", "patient": "held out"}
        held_out["signatures"].obs["sample"], held_out["signatures"].obs["patient"] = "held out", "held out"
        sp.tl.predict(held_out, self.model)
        sp.tl.triage(held_out, self.model, calibration=held_out, error_rate=0.5)
        self.evaluation = sp.tl.evaluate(slide, self.model)
        self.slide, self.before = slide, state(slide)
        self.adata = slide["table"].copy()
        self.image = np.moveaxis(full_resolution(slide["he_image"]).to_numpy(), 0, -1)
        Image.fromarray(np.ascontiguousarray(self.image)).save(folder / "biopsy.png")
        sp.io.write(slide, folder / "slide.zarr")
        sp.io.export_seed_layout(slide, folder / "layout", images=True)
        bundles = sp.datasets.synthetic_xenium(folder / "bundles", n_slides=1, size_um=100, transcripts=False)
        self.bundle = bundles.iloc[0].to_dict()
        self.model.save(folder / "vit")
        self.autoencoder.save(folder / "ae")
        self.cohort = sp.Cohort({"S1": folder / "slide.zarr"})
        self.ensemble = sp.models.SignatureEnsemble([self.model, self.model])
        self.ensemble.save(folder / "ensemble")
        self.pretrained = sp.tl.pretrain_vit(slide, size=TINY, max_epochs=1)
        self.pretrained.save(folder / "pretrained")
        labels = slide["signatures"]
        self.outside = labels.to_df().assign(patch_id=labels.obs["patch_id"].to_numpy())
        self.head = sp.tl.train_cell_head(slide, self.model)
        self.head.save(folder / "head")
        points = pd.DataFrame(
            {"n_patients": [1, 2, 4], "repeat": 0, "signature": "T", "pearson": 0.5, "share_of_ceiling": 0.6}
        )
        self.curves = summary_of(points, n_pool=4, target=0.8, level=0.95)
        self.scales = sp.tl.scales(slide, scales_um=[56.0])
        self.settings = dict(vars(sp.settings))

    def calls(self, n: int) -> dict[str, dict[str, Any]]:
        """Function -> arguments with which it works; ``n`` makes the names of what is written new ones."""
        out, store = self.folder / f"out{n}", self.folder / "slide.zarr"
        slide: dict[str, Any] = {"data": self.slide}
        fit: dict[str, Any] = {"size": TINY, "max_epochs": 1}
        ladder = {"evaluation": self.evaluation}
        return {
            "io.export_explorer_groups": slide | {"path": out / "g.csv"},
            "io.export_geojson": slide | {"path": out / "a.geojson"},
            "io.export_heatmap": slide | {"path": out / "a.ome.tif", "signature": "Immune_T"},
            "io.export_seed_layout": slide | {"directory": out},
            "io.from_anndata": {
                "adata": self.adata,
                "image": self.image,
                "um_per_px": sp.io.mpp(self.slide),
                "spatial_unit": "um",
            },
            "io.mpp": slide,
            "io.optimize": {"path": store},
            "io.read": {"path": store},
            "io.read_he": {"path": self.bundle["he_image"], "um_per_px": 0.5},
            "io.read_seed_layout": {"directory": self.folder / "layout", "um_per_px": 1.0},
            "io.read_signatures": {"source": "seed"},
            "io.read_xenium": {"path": self.bundle["bundle"]},
            "io.repair": {"path": store},
            "io.status": slide,
            "io.verify": {"path": store},
            "io.write": {"sdata": self.slide, "path": out / "new.zarr"},
            "pp.align_he": {"data": self.bare, "matrix": self.place},
            "pp.assign_cells": slide,
            "pp.filter_cells": slide | {"min_counts": 1},
            "pp.find_nuclei": slide,
            "pp.find_tissue": slide,
            "pp.highly_variable_genes": slide | {"n_top_genes": 50},
            "pp.import_patches": slide | {"source_key": "patches", "key_added": "more"},
            "pp.make_patches": slide | {"patch_px": 28, "um_per_px": 2.0},
            "pp.normalize": slide,
            "pp.normalize_stain": slide,
            "pp.qc_alignment": slide,
            "pp.qc_patches": slide | {"model": self.model},
            "pp.split": slide | {"by": "block", "n_folds": 2, "block_um": 100.0, "buffer_um": 0.0},
            "tl.aggregate_patches": slide | {"min_cells": 3},
            "tl.attention": slide | {"model": self.model, "signatures": ["Immune_T"], "patches": [0], "n_steps": 1},
            "tl.baselines": slide,
            "tl.calibrate": slide | {"model": self.model, "fold": 0, "coverage": 0.8},
            "tl.compare_methods": ladder,
            "tl.cross_validate": slide | {"run_dir": out} | fit | {"autoencoder": {"max_epochs": 1, "hidden": (8,)}},
            "tl.embed_cells": slide | {"model": self.autoencoder},
            "tl.embed_patches": slide | {"backbone": self.model},
            "tl.embedding_leak": slide,
            "tl.evaluate": slide | {"model": self.model},
            "tl.evaluate_cells": slide | {"n_repeats": 1},
            "tl.findings": slide,
            "tl.noise_ceiling": slide | {"n_repeats": 2},
            "tl.power": slide,
            "tl.predict": slide | {"model": self.model},
            "tl.predict_cells": slide | {"model": self.model},
            "tl.predict_files": {
                "model": self.model,
                "slides": self.folder / "biopsy.png",
                "out": out,
                "um_per_px": sp.io.mpp(self.slide),
                "formats": ["csv"],
            },
            "tl.pretrain_vit": slide | fit,
            "tl.referee": slide | {"predictions": self.outside, "unit": "scores"},
            "tl.scales": slide | {"scales_um": [56.0]},
            "tl.score_cells": slide | {"signatures": "seed"},
            "tl.signature_map": slide | {"model": self.model, "stride_um": 56.0},
            "tl.summarise": ladder,
            "tl.train_autoencoder": slide | {"signatures": "seed", "n_latent": 4, "hidden": (16,), "max_epochs": 1},
            "tl.train_cell_head": slide | {"model": self.model},
            "tl.train_ensemble": slide | {"n_members": 2} | fit,
            "tl.train_probe": slide | {"features_key": "features"},
            "tl.train_vit": slide | fit,
            "tl.triage": slide | {"model": self.model, "error_rate": 0.5},
            "pl.alignment": slide,
            "pl.atlas": slide | {"path": self.folder / "atlas.html"},
            "pl.attention": slide | {"signature": "Immune_T"},
            "pl.calibration": slide,
            "pl.compare": slide | {"signature": "Immune_T"},
            "pl.coverage": slide | {"signatures": "seed"},
            "pl.gallery": slide | {"signature": "Immune_T", "n": 1},
            "pl.history": {"history": self.model},
            "pl.ladder": ladder,
            "pl.napari": slide | {"run": False},
            "pl.patches": slide | {"signature": "Immune_T"},
            "pl.power": {"result": self.curves},
            "pl.scales": {"result": self.scales},
            "pl.scatter": slide,
            "pl.vitessce": {"data": store, "url": "https://our-lab.org/stores"},
            "datasets.synthetic_xenium": {"directory": out, "n_slides": 1, "size_um": 100.0, "transcripts": False},
            "datasets.toy": {"size_um": 100.0},
            "datasets.toy_model": {"sdata": self.slide},
            "datasets.toy_study": {},
            "models.export_seed_autoencoder": {"model": self.prototype, "directory": out},
            "models.import_seed_autoencoder": {"directory": self.folder / "prototype"},
            "models.load_signature_model": {"directory": self.folder / "vit"},
            "models.from_hub": {"source": self.folder / "vit"},
            "models.push_to_hub": {"model": self.model, "repository": "our-lab/breast"},
            "models.LazySlideModel": {"model": self.model},
            "ViTConfig": {},
            "TrainerConfig": {},
            "AugmentConfig": {},
            "Settings.assign": dict(self.settings),
            "register_backbone": {"name": f"ours{n}", "factory": torch.nn.Identity},
        } | self.methods(out)

    def methods(self, out: Path) -> dict[str, dict[str, Any]]:
        """Method of a class, or of :attr:`owners` -> arguments with which it works."""
        model, ae = self.model, self.autoencoder
        counts = self.slide["table"][:20, list(ae.genes)].X
        images = {"images": np.full((2, 3, 28, 28), 200, np.uint8), "ae": np.zeros((2, 4), np.float32)}
        scale = {name: getattr(model, name) for name in ("target_mean", "target_std", "patch_px", "um_per_px")}
        save, manifest = (
            {"directory": out / "model"},
            pd.DataFrame([self.bundle]).drop(columns=["n_cells"], errors="ignore"),
        )
        return {
            "Cohort": {"source": {"S1": self.folder / "slide.zarr"}},
            "Cohort.open": {"directory": self.folder},
            "Cohort.from_bundles": {"manifest": manifest, "out": out},
            "Cohort.panels": {},
            "Cohort.genes": {},
            "Cohort.subset": {"samples": ["S1"]},
            "Cohort.__getitem__": {"sample": "S1"},
            "models.SignatureViT": scale | {"config": model.config, "signatures": list(model.signatures)},
            "models.SignatureViT.predict": images,
            "models.SignatureViT.save": save,
            "models.SignatureViT.load": {"directory": self.folder / "vit"},
            "models.SignatureEnsemble": {"members": [model, model]},
            "models.SignatureEnsemble.predict": images,
            "models.SignatureEnsemble.predict_distribution": images,
            "models.SignatureEnsemble.save": save,
            "models.SignatureEnsemble.load": {"directory": self.folder / "ensemble"},
            "models.PretrainedViT": {"net": self.pretrained.net, "patch_px": 28, "um_per_px": 2.0},
            "models.PretrainedViT.save": save,
            "models.PretrainedViT.load": {"directory": self.folder / "pretrained"},
            "models.CellHead": {"signatures": ["A"], "feature_mean": [0.0], "feature_std": [1.0], "model_sha256": "0"},
            "models.CellHead.predict": {"features": np.zeros((2, self.head.n_features), np.float32)},
            "models.CellHead.save": save,
            "models.CellHead.load": {"directory": self.folder / "head"},
            "models.Autoencoder": {"config": ae.config, "genes": list(ae.genes), "mean": ae.mean, "std": ae.std},
            "models.Autoencoder.align_genes": {"var_names": list(ae.genes)},
            "models.Autoencoder.get_latent_representation": {"counts": counts},
            "models.Autoencoder.reconstruct": {"counts": counts},
            "models.Autoencoder.get_reconstruction_error": {"counts": counts},
            "models.Autoencoder.save": save,
            "models.Autoencoder.load": {"directory": self.folder / "ae"},
        }

    def target(self, name: str) -> Any:
        """What is called: a function, a class, a method of one of our objects, or the assignment of a setting."""
        if name == "Settings.assign":
            return assign
        owners = {
            "Cohort": self.cohort, "models.SignatureViT": self.model, "models.SignatureEnsemble": self.ensemble,
            "models.PretrainedViT": self.pretrained, "models.Autoencoder": self.autoencoder, "models.CellHead": self.head,
        }  # fmt: skip
        owner, _, method = name.rpartition(".")
        return getattr(owners[owner], method) if owner in owners else function(name)


# what is not drawn: needs a window, or runs minutes for every value that it takes
SLOW = {"pl.napari", "tl.cross_validate", "tl.train_ensemble", "tl.embedding_leak", "datasets.toy_study"}


def assign(**settings: Any) -> None:
    """Assign all settings of this package."""
    before = dict(vars(sp.settings))
    try:
        for name, value in settings.items():
            setattr(sp.settings, name, value)
    finally:
        for name, value in before.items():
            setattr(sp.settings, name, value)


def function(name: str) -> Any:
    """Public function or class ``room.name``."""
    found: Any = sp
    for part in name.split("."):
        found = getattr(found, part)
    return found


def state(slide: sd.SpatialData) -> str:
    """Hash of all that functions may change."""
    parts: list[str] = [json.dumps(slide.attrs, sort_keys=True, default=str)]
    for key, table in sorted(slide.tables.items()):
        x = table.X.data if hasattr(table.X, "indptr") else table.X
        parts += [key, str(table.shape), repr(np.asarray(x).tobytes().__hash__())]
        parts += [*map(str, table.obs.columns), *map(str, table.obsm), *map(str, table.layers), *map(str, table.var)]
        parts += [str(pd.util.hash_pandas_object(table.obs).sum()), repr(sorted(map(str, table.uns)))]
    parts += [
        f"{key}{len(shapes)}{list(shapes.columns)}{shapes.total_bounds}" for key, shapes in sorted(slide.shapes.items())
    ]
    parts += [f"{key}{full_resolution(slide[key]).shape}" for key in sorted(slide.images)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Hangs(BaseException):
    """A call took longer than :data:`LIMIT_S`."""


def _alarm(*_: Any) -> None:
    raise Hangs


def is_default(target: Any, argument: str, value: Any) -> bool:
    """Whether a value is the one that an argument has where none is given."""
    parameter = inspect.signature(target).parameters.get(argument)
    return parameter is not None and type(value) is type(parameter.default) and bool(value == parameter.default)


def said_anyway(study: Study, name: str, n: int, said: str) -> bool:
    """Whether the same is said where every argument is right: of one slide there is no learning curve, whatever is asked for."""
    try:
        study.target(name)(**study.calls(n)[name])
    except SpatialsigError as error:
        return str(error) == said
    return False


def outcome(study: Study, name: str, argument: str, value: Any, n: int) -> tuple[str, str]:
    """How a call ends, and what was said."""
    arguments = study.calls(n)[name] | {argument: value}
    target = study.target(name)
    signal.alarm(LIMIT_S)
    try:
        target(**arguments)
        ended, said = ACCEPTED, ""
    except Hangs:
        ended, said = HANGS, ""
    except SpatialsigError as error:
        told = argument in str(error) or (str(value) and str(value) in str(error))
        signal.alarm(0)
        usual = told or is_default(target, argument, value) or said_anyway(study, name, n, str(error))
        ended, said = NAMED if told else ACCEPTED if usual else UNNAMED, str(error)  # refused for what it is not
    except TypeError as error:
        missing = "missing" in str(error) and "argument" in str(error)
        ended, said = NAMED if missing else RAW, "".join(traceback.format_exception(error)[-4:])
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        ended, said = RAW, "".join(traceback.format_exception(error)[-4:])
    finally:
        signal.alarm(0)
        mpl.pyplot.close("all")
    return ended, said


def draw(rng: np.random.Generator, names: list[str], study: Study) -> tuple[str, str, Any]:
    """Function, argument and value."""
    name = names[rng.integers(len(names))]
    known = inspect.signature(study.target(name)).parameters.values()
    parameters = [p.name for p in known if p.kind is not p.VAR_KEYWORD] or [*study.settings, "no_such_setting"]
    return name, parameters[rng.integers(len(parameters))], WRONG[rng.integers(len(WRONG))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--functions", nargs="*", help="only these")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    signal.signal(signal.SIGALRM, _alarm)
    rng, counts, bad, started = np.random.default_rng(args.seed), Counter(), [], time.perf_counter()
    args.json = args.json and args.json.absolute()
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # some values are relative paths
        study = Study(Path(folder))
        pristine = sd.deepcopy(study.slide)
        names = args.functions or sorted(set(study.calls(0)) - SLOW)
        for n in range(args.n):
            name, argument, value = draw(rng, names, study)
            (study.folder / f"out{n}").mkdir()
            (study.folder / f"here{n}").mkdir()
            os.chdir(study.folder / f"here{n}")  # a relative path that one call writes to is not there for the next
            ended, said = outcome(study, name, argument, value, n)
            if state(study.slide) != study.before:
                study.slide = sd.deepcopy(pristine)
                ended = ended if ended == ACCEPTED else CHANGED
            counts[ended] += 1
            if ended in (RAW, UNNAMED, CHANGED, HANGS):
                bad.append({"call": f"{name}({argument}={value!r:.60})", "ended": ended, "said": said})
                print(f"{ended:12} {name}({argument}={value!r:.60})\n    {said[-600:]}", file=sys.stderr, flush=True)
        os.chdir(here)
    report = {
        "n": args.n, "seed": args.seed, "functions": len(names), "seconds": round(time.perf_counter() - started, 1),
        "counts": dict(counts), "bad": bad[:50],
    }  # fmt: skip
    print(json.dumps({key: value for key, value in report.items() if key != "bad"}))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
