"""Files of a run: where they lie, what they hold, and its record in ``run.json``.

Floor 11, above report. Used by pipeline/report_of_run, pipeline/run, pipeline/run_steps.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialsig import _files
from spatialsig._hashing import file_ends_hash, file_hash, json_hash, listing_of
from spatialsig._settings import settings
from spatialsig._text import decoded
from spatialsig.errors import InputError
from spatialsig.io._cohort import BUNDLE, HE_ALIGNMENT, HE_IMAGE, at_home, read_csv
from spatialsig.io.images.open_rgb import WITH_FOLDER
from spatialsig.models.directory import CONFIG
from spatialsig.models.record import RUN, read_record
from spatialsig.report.methods_section import versions
from spatialsig.slide.slides import open_slides

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spatialsig.pipeline.run_config import RunConfig

AUTOENCODER, IMAGE_MODEL = "autoencoder", "vit"
_HISTORIES = {AUTOENCODER: "autoencoder", IMAGE_MODEL: "image model"}
RECORDED_PACKAGES = (
    "spatialsig", "spatialdata", "spatialdata-io", "anndata", "scanpy", "squidpy", "torch", "lightning", "numpy", "scipy",
    "scikit-learn", "numba", "pandas", "zarr", "tensorstore", "tifffile",
)  # fmt: skip
STORE = ".zarr"
RESULTS = ("evaluation", "summary", "comparisons", "findings")  # of the evaluation
CROSS_VALIDATION = ("cross_validation", "cross_validation_summary")
TABLES = (*RESULTS, "coverage", "stains", "patch_qc", "intervals", *CROSS_VALIDATION)


class RunFiles:
    """Files of one run, below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stores = root / "stores"  # one per slide
        self.models = root / "models"  # one directory per model
        self.training = root / "training"  # checkpoints of the runs that are not finished
        self.folds = root / "cross_validation"  # models and results of each fold
        self.ledger = root / "steps.json"  # what is done, see :class:`spatialsig.slide.ledger.Ledger`
        self.record = root / "run.json"  # versions, parameters, seeds and hashes of the run
        self.report = root / "report.html"

    def table(self, name: str) -> Path:
        """A csv of the run, one of ``TABLES``."""
        return self.root / f"{name}.csv"

    def read_table(self, name: str, **options: Any) -> pd.DataFrame | None:
        """A csv of the run as a frame; None where the run has none, or an empty one."""
        path = self.table(name)
        if not path.exists() or not decoded(path).strip():
            return None
        try:
            table: pd.DataFrame = pd.read_csv(path, **options)
        except ValueError as error:  # of which those of pandas are
            msg = f"{str(path)!r} cannot be read as csv ({error}). Remove it, or run again."
            raise InputError(msg) from error
        return table

    def in_stores(self, table: str) -> list[str]:
        """A table of every slide, as :meth:`fingerprint` takes it."""
        return [
            f"{store.relative_to(self.root).as_posix()}/tables/{table}" for store in sorted(self.stores.glob("*.zarr"))
        ]

    def fingerprint(self, name: str) -> str | None:
        """Hash of a file, of a model, or of a table in a store, by its path below the root; None where it is not there."""
        path = self.root / name
        if not path.exists():
            return None
        store, inside, table = name.partition(f"{STORE}/tables/")
        if inside:
            (slide,) = open_slides(self.root / f"{store}{STORE}")
            return slide.lineage.fingerprint(table)
        return _weights_hash(path) if path.is_dir() else file_hash(path)

    def changed(self, left: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Of results and their fingerprints when a step left them: those that are gone, and those that are others now."""
        now = {name: self.fingerprint(name) for name in left}
        gone = [name for name, found in now.items() if found is None]
        return gone, [name for name, found in now.items() if found not in (None, left[name])]

    def model_files(self) -> dict[str, dict[str, Any]]:
        """Configuration and provenance of each model, by a name for people; none of its weights."""
        found = {}
        for directory in (self.models / name for name in _HISTORIES):
            if (directory / RUN).is_file() and (directory / CONFIG).is_file():
                digests = _digests(directory / RUN)
                if RUN in digests:  # of early versions, which do not say what they held
                    read_record(directory, [CONFIG])
                found[_HISTORIES[directory.name]] = {
                    "config": _with_member(directory, read_json(directory / CONFIG)),
                    "run": field_of(directory / RUN, "run"),
                    "sha256": digests,
                }
        return found


def _with_member(directory: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Configuration of a model; of an ensemble with the network that its members share."""
    members = config.get("members") or []
    first = directory / str(members[0]["directory"]) / CONFIG if members else directory
    return {"net": read_json(first).get("net", {})} | config if first.is_file() else config


def _weights_hash(model: Path) -> str:
    """Hash of what was learned, of an ensemble by each member; not of intervals, which a later step adds."""
    records = {path.relative_to(model).as_posix(): _digests(path) for path in sorted(model.rglob(RUN))}
    return json_hash(
        {
            name: {file: digest for file, digest in digests.items() if file not in (CONFIG, RUN)}
            for name, digests in records.items()
        }
    )


def _digests(record: Path) -> dict[str, str]:
    """Hashes of the files of a model, which its record states."""
    return field_of(record, "sha256")


def field_of(path: Path, name: str) -> dict[str, Any]:
    """An object within that of a JSON file, empty where there is none; :class:`InputError` if it is something else."""
    value = read_json(path).get(name)
    if not isinstance(value, dict | None):
        msg = f"{path} is damaged: `{name}` is a {type(value).__name__}; wanted an object. Remove it, or run again."
        raise InputError(msg)
    return {} if value is None else value


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file; :class:`InputError` if the file does not hold one."""
    if not path.is_file():
        msg = f"{path} is no file; wanted one in JSON. Remove it, or run again."
        raise InputError(msg)
    loaded = _files.read_json(path, fix="Remove it, or run again.")
    if not isinstance(loaded, dict):
        msg = f"{path} must hold an object; got {type(loaded).__name__}."
        raise InputError(msg)
    return loaded


def input_fingerprints(bundles: Path) -> dict[str, dict[str, str]]:
    """Fingerprint of every file of each bundle, its H&E and alignment, by sample; empty without a readable csv.

    Of files both ends and the size are hashed; of each subfolder, such as the chunks of an OME-Zarr image, the names, sizes and
    times of change of all files in it, none of which is read.
    """
    if not bundles.is_file():
        return {}
    rows = read_csv(bundles, needed=("sample",))
    found = {}
    for row in rows.to_dict("records"):
        of_slide: dict[str, str] = {}
        for column in (BUNDLE, HE_IMAGE, HE_ALIGNMENT):
            value = row.get(column)
            for name, digest in _of_place(bundles.parent / at_home(value)) if isinstance(value, str) else ():
                other = of_slide.get(name, digest) != digest  # two inputs of one name
                of_slide[f"{column}/{name}" if other else name] = digest
        found[str(row["sample"])] = of_slide
    return found


def _of_place(place: Path) -> Iterator[tuple[str, str]]:
    """Names and fingerprints of a file, with the folder of the same name that some formats keep the pixels in, or of a folder."""
    place = at_home(place)
    beside = [place.with_suffix("")] if place.suffix.lower() in WITH_FOLDER else []
    for path in [*(sorted(place.iterdir()) if place.is_dir() else [place]), *beside]:
        if path.is_file():
            yield path.name, file_ends_hash(path)
        elif path.is_dir():
            yield f"{path.name}/", json_hash(listing_of(path))


def write_record(
    config: RunConfig, files: RunFiles, *, inputs: Mapping[str, Mapping[str, str]], seconds: Mapping[str, float]
) -> Path:
    """Write ``run.json``: versions, machine, parameters, seeds, hashes of inputs and results, seconds of each step."""
    models = files.model_files()
    record = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions(RECORDED_PACKAGES),
        "machine": {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": settings.threads,
        },
        "parameters": config.model_dump(mode="json"),
        "seeds": {"run": config.seed} | {name: found["run"].get("seed") for name, found in models.items()},
        "inputs": inputs,
        "models": {name: found["sha256"] for name, found in models.items()},
        "tables": {name: file_ends_hash(files.table(name)) for name in TABLES if files.table(name).is_file()},
        "seconds": seconds,
    }
    _files.write_text(files.record, json.dumps(record, indent=1, default=str))
    return files.record
