"""Change random bytes of Xenium bundles and read them: never a crash, never another object without a word.

Every mutation is read in a child process with a time limit. What comes back is one of: ``typed`` (an error of ours),
``warned`` (an object and a SpatialsigWarning), ``equal`` (the same object), and the bad ones: ``silent`` (another object),
``untyped`` (an error of someone else), ``crash`` (a signal), ``slow`` (past the time limit).

The alignment csv and the pixels of the H&E exist once in a bundle and carry no checksum; a change there cannot be
noticed by any reader. They are mutated too and counted apart (``unchecked``).
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

LAYOUTS = ("1.0", "1.6", "2.0", "3.0", "4.0", "atera-preview", "atera-1.0")
READ = ("experiment.xenium", "cell_feature_matrix.h5", "cells.parquet", "cells.zarr.zip")
READ_OF_ATERA = ("experiment.spatial", "cell_feature_matrix.zarr.zip", "cells.zarr.zip")
UNCHECKED = ("S1_he_imagealignment.csv", "S1_he_alignment.csv", "S1_he_image.ome.tif")
BAD = ("silent", "untyped", "crash", "slow")
LIMIT_S = 60.0
GOALS = {"bad": 0}


def make_bundles(root: Path) -> None:
    import spatialsig as sp

    sp.settings.progress = False
    for version in LAYOUTS:
        options = {"n_slides": 1, "size_um": 120.0, "density_per_mm2": 9000.0, "transcripts": False, "seed": 1}
        sp.datasets.synthetic_xenium(root / version, version=version, **options)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One changed byte mostly; sometimes some in a row, a lost tail or a hole of zeros."""
    changed = bytearray(data)
    kind, at = rng.random(), int(rng.integers(len(data)))
    if kind < 0.8:
        changed[at] ^= int(rng.integers(1, 256))
    elif kind < 0.9:
        changed[at : at + 8] = rng.bytes(len(changed[at : at + 8]))
    elif kind < 0.95:
        changed[at : at + 64] = bytes(len(changed[at : at + 64]))
    else:
        del changed[at:]
    return bytes(changed)


def fingerprint(sdata: Any) -> dict[str, Any]:
    """Everything a reader of the object can see, as arrays."""
    from spatialdata.transformations import get_transformation

    table, image = sdata["table"], sdata["he_image"]
    axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
    obs = {f"obs {name}": np.asarray(table.obs[name]) for name in table.obs}
    return obs | {
        "counts": table.X.toarray(),
        "genes": np.asarray(table.var_names, dtype=str),
        "gene_ids": np.asarray(table.var["gene_ids"], dtype=str),
        "spatial": table.obsm["spatial"],
        "radius": sdata["cell_circles"]["radius"].to_numpy(),
        "dropped": np.array(json.dumps(table.uns["spatialsig"]["read_xenium"]["counts_dropped"], sort_keys=True)),
        "um_per_px": np.array(sdata.attrs["spatialsig"]["um_per_global_px"]),
        "alignment": get_transformation(image).to_affine_matrix(**axes),
        "pixels": np.asarray(image["scale0"]["image"].values),
    }


def differences(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """Names of what differs; um to 1 nm, the pixel size to 1e-5, as the reader compares its two copies."""
    if one.keys() != two.keys():
        return sorted(one.keys() ^ two.keys())
    wrong = []
    for name, value in one.items():
        other = two[name]
        numbers = value.dtype.kind == "f" and other.dtype.kind == "f"
        same = value.shape == other.shape and (
            np.allclose(value, other, rtol=1e-5, atol=2e-3, equal_nan=True) if numbers else np.array_equal(value, other)
        )
        wrong += [] if same else [name]
    return wrong


def read(bundle: Path, reference: dict[str, Any] | None) -> tuple[str, str, dict[str, Any]]:
    import spatialsig as sp
    from spatialsig.errors import SpatialsigError, SpatialsigWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = fingerprint(sp.io.read_xenium(bundle))
        except SpatialsigError as error:
            return "typed", str(error), {}
        except Exception as error:  # noqa: BLE001 - the point is to learn of every kind
            return "untyped", f"{type(error).__name__}: {error}", {}
    if reference is None:
        return "equal", "", found
    own = [str(w.message) for w in caught if issubclass(w.category, SpatialsigWarning)]
    wrong = differences(reference, found)
    if own:
        return "warned", own[0], {}
    return ("silent", ", ".join(wrong), {}) if wrong else ("equal", "", {})


def serve(pipe: Any) -> None:
    """Read the bundles whose paths come through the pipe; the first of a layout is the original."""
    references: dict[str, dict[str, Any]] = {}
    while (job := pipe.recv()) is not None:
        version, path = job
        answer, text, found = read(Path(path), references.get(version))
        references.setdefault(version, found)
        pipe.send((answer, text))


class Child:
    """A process that reads for us, started again when it dies."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.start()

    def start(self) -> None:
        self.pipe, other = multiprocessing.get_context("spawn").Pipe()
        self.process = multiprocessing.get_context("spawn").Process(target=serve, args=(other,), daemon=True)
        self.process.start()
        other.close()
        for version in LAYOUTS:
            answer = self.ask(version, self.root / version / "S1")
            if answer[0] != "equal":
                msg = f"the original of layout {version} is not read: {answer[1]}"
                raise RuntimeError(msg)

    def ask(self, version: str, path: Path) -> tuple[str, str]:
        self.pipe.send((version, str(path)))
        try:
            if not self.pipe.poll(LIMIT_S):
                return "slow", ""
            answer: tuple[str, str] = self.pipe.recv()
        except EOFError:
            self.process.join()
            return "crash", f"exit code {self.process.exitcode}"
        return answer

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()


def fuzz(n: int, seed: int, root: Path) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    child, results = Child(root), []
    broken = root / "broken"
    for number in range(n):
        version = LAYOUTS[number % len(LAYOUTS)]
        original = root / version / "S1"
        read = READ_OF_ATERA if version == "atera-1.0" else READ
        unchecked = [name for name in UNCHECKED if (original / name).exists()]
        name = str(rng.choice([*read, *read, *unchecked]))
        folder = broken / str(number) / "S1"
        folder.mkdir(parents=True)
        for file in original.iterdir():
            (folder / file.name).symlink_to(file)
        (folder / name).unlink()
        (folder / name).write_bytes(mutate((original / name).read_bytes(), rng))
        answer, text = child.ask(version, folder)
        results.append({"number": number, "layout": version, "file": name, "answer": answer, "text": text[:300]})
        if answer in ("crash", "slow"):
            child.stop()
            child.start()
        (folder / name).unlink()
    child.stop()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000, help="mutations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="200 mutations")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "fuzz_bundle.json")
    options = parser.parse_args()
    n = 200 if options.quick else options.n
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        make_bundles(Path(folder))
        results = fuzz(n, options.seed, Path(folder))
    checked = [r for r in results if r["file"] not in UNCHECKED]
    unchecked = [r for r in results if r["file"] in UNCHECKED]
    # what has no second copy may differ silently, but must not crash or raise what is not ours
    bad = [r for r in checked if r["answer"] in BAD] + [r for r in unchecked if r["answer"] in BAD[1:]]
    report = {
        "n": n,
        "seconds": round(time.perf_counter() - start, 1),
        "goals": GOALS,
        "checked": dict(collections.Counter(r["answer"] for r in checked)),
        "unchecked": dict(collections.Counter(r["answer"] for r in unchecked)),
        "by_file": {
            name: dict(collections.Counter(r["answer"] for r in results if r["file"] == name))
            for name in sorted({r["file"] for r in results})
        },
        "bad": bad,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key != "bad"}, indent=2))
    print(f"{len(bad)} bad of {n} (goal 0)")
    for result in bad[:20]:
        print(result)


if __name__ == "__main__":
    main()
