"""Damage model directories in every way that disks, copies and strangers do: each is refused with our error, or harmless.

Eight small models (two of each kind) are altered one thing at a time: bits flipped, files cut short, lengthened, removed,
swapped within a model and with another one, replaced by a pickle that would write a marker, white space added to JSON, files
added. Half of the alterations are *signed again*: the digests are made to fit, so that what stands behind them is reached.
An alteration is harmless when every bit of the loaded model is as before; a signed one may also be another whole model.

    python benchmarks/damaged_models.py [--n 10000] [--quick] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spatialsig._hashing import content_hash, file_hash
from spatialsig.errors import SpatialsigError
from spatialsig.models import Autoencoder, CellHead, PretrainedViT, SignatureEnsemble, SignatureViT
from spatialsig.models.domain import TrainingDomain
from spatialsig.models.record import RUN, write_record
from spatialsig.nn.autoencoder import AutoencoderConfig
from spatialsig.nn.signature import SignatureConfig
from spatialsig.nn.vit import ViT, ViTConfig

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
SMALL = ViTConfig(dim=8, depth=1, heads=2, mlp_dim=8, stem=(4, 4), stem_blocks=(0, 0))
HARMLESS, REFUSED, ANOTHER = "harmless", "refused", "another whole model"


class Payload:
    """What a pickle would run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def make_models(place: Path) -> dict[Path, type]:
    """Two models of each kind and where they were saved."""
    made: dict[Path, type] = {}
    for seed in (1, 2):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        scale = {"target_mean": rng.random(2), "target_std": 0.5 + rng.random(2)}
        shape = SignatureConfig(vit=SMALL, n_targets=2)
        vits = [
            SignatureViT(shape, ["A", "B"], **scale, patch_px=16, um_per_px=0.5, run={"training_samples": [f"S{seed}"]})
            for _ in range(2)
        ]
        expression = Autoencoder(
            AutoencoderConfig(hidden=(8,), n_latent=2), [f"G{i}" for i in range(9)], mean=rng.random(9),
            std=0.5 + rng.random(9), run={"seed": seed},
        )  # fmt: skip
        # features of the network after its pooling, as `train_vit` learns them
        seen = {"stain": rng.random((40, 7)), "sharpness": rng.random((40, 1)), "tissue": rng.random((40, SMALL.dim))}
        groups = np.repeat(["P1", "P2"], 20)
        vits[0].domain = TrainingDomain.learn(seen, groups, groups)
        pretrained = PretrainedViT(ViT(SMALL), patch_px=16, um_per_px=0.5, run={"seed": seed})
        head = CellHead(
            ["A", "B"],
            feature_mean=rng.random(5),
            feature_std=0.5 + rng.random(5),
            model_sha256="0",
            run={"seed": seed},
        )
        for model in (expression, vits[0], pretrained, SignatureEnsemble(vits), head):
            made[place / f"{model.kind}-{seed}"] = type(model)
            model.save(place / f"{model.kind}-{seed}")
    return made


def state(model: Any) -> str:
    """Hash of everything a model holds."""
    parts: list[Any] = []
    for one in getattr(model, "members", [model]):
        for name, tensor in sorted(one.net.state_dict().items()):
            parts += [name, tensor.numpy()]
        for name, value in sorted(vars(one).items()):
            if name != "net":
                shown = [value.sha256] if isinstance(value, TrainingDomain) else [repr(value)]
                parts += [name, *([value] if isinstance(value, np.ndarray) else shown)]
    return content_hash([*parts, repr(model.run), repr(getattr(model, "intervals", None))])


def files_of(place: Path) -> list[Path]:
    return sorted(file for file in place.rglob("*") if file.is_file())


def flip(file: Path, rng: np.random.Generator, _others: list[Path]) -> None:
    data = bytearray(file.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    file.write_bytes(data)


def overwrite(file: Path, rng: np.random.Generator, _others: list[Path]) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(int(rng.integers(2, 20))):
        data[rng.integers(len(data))] = int(rng.integers(256))
    file.write_bytes(data)


def truncate(file: Path, rng: np.random.Generator, _others: list[Path]) -> None:
    file.write_bytes(file.read_bytes()[: int(rng.integers(file.stat().st_size))])


def lengthen(file: Path, rng: np.random.Generator, _others: list[Path]) -> None:
    with file.open("ab") as open_file:
        open_file.write(rng.bytes(int(rng.integers(1, 50))))


def remove(file: Path, _rng: np.random.Generator, _others: list[Path]) -> None:
    file.unlink()


def add(file: Path, rng: np.random.Generator, _others: list[Path]) -> None:
    name = str(rng.choice(["README.md", "weights.pt", "model.pkl", ".DS_Store", "run.json.bak", "extra.json"]))
    (file.parent / name).write_bytes(rng.bytes(40))


def swap_within(file: Path, rng: np.random.Generator, _others: list[Path]) -> None:
    other = Path(rng.choice([str(beside) for beside in files_of(file.parent) if beside != file]))
    data = other.read_bytes()
    other.write_bytes(file.read_bytes())
    file.write_bytes(data)


def swap_between(file: Path, rng: np.random.Generator, others: list[Path]) -> None:
    alike = [other for other in others if other.name == file.name]
    file.write_bytes(Path(rng.choice([str(other) for other in alike])).read_bytes())


def white_space(file: Path, _rng: np.random.Generator, _others: list[Path]) -> None:
    file.write_bytes(file.read_bytes() + b"\n")


def payload(file: Path, rng: np.random.Generator, _others: list[Path]) -> None:
    danger = Payload(Path(os.environ["SPATIALSIG_MARKER"]))
    if rng.integers(2):
        file.write_bytes(pickle.dumps(danger))
    else:
        with file.open("wb") as open_file:
            np.savez(open_file, mean=np.array([danger], object), std=np.ones(1))


WAYS: tuple[Callable[..., None], ...] = (
    flip, flip, flip, overwrite, truncate, lengthen, remove, add, swap_within, swap_between, white_space, payload,
)  # fmt: skip


def sign_again(place: Path) -> None:
    """Make the digests of a model, and of the ensemble it belongs to, fit its files."""
    for directory in sorted({file.parent for file in files_of(place)}, reverse=True):
        with suppress(ValueError, TypeError, OSError, KeyError, AttributeError):
            record = json.loads((directory / RUN).read_text())
            config = directory / "config.json"
            members = json.loads(config.read_text()) if directory == place else {}
            for entry in members.get("members", []):
                entry["sha256"] = file_hash(directory / entry["directory"] / RUN)
            if members.get("members"):
                config.write_text(json.dumps(members, indent=1))
            write_record(directory, set(record["sha256"]) - {RUN}, record["run"])


def outcome(place: Path, kind: Any, before: str, *, signed: bool) -> str:
    """How loading an altered model ends; anything else than the three good ends is described."""
    try:
        model = kind.load(place)
    except SpatialsigError:
        return REFUSED
    except BaseException as error:  # noqa: BLE001 (what is looked for)
        return f"{type(error).__name__}: {error}"
    if state(model) == before:
        return HARMLESS
    return ANOTHER if signed else "loaded as another model"


def run(n: int, seed: int = 0) -> dict[str, Any]:
    """Alter models ``n`` times; what was tried and how it ended."""
    rng = np.random.default_rng(seed)
    ends: Counter[str] = Counter()
    by_way: dict[str, Counter[str]] = {}
    bad: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        marker = Path(directory) / "marker"
        os.environ["SPATIALSIG_MARKER"] = str(marker)
        models = make_models(Path(directory) / "models")
        original = {place: {file: file.read_bytes() for file in files_of(place)} for place in models}
        states = {place: state(kind.load(place)) for place, kind in models.items()}
        every = [file for files in original.values() for file in files]
        for number in range(n):
            place = list(models)[int(rng.integers(len(models)))]
            file = list(original[place])[int(rng.integers(len(original[place])))]
            way, signed = WAYS[int(rng.integers(len(WAYS)))], bool(rng.integers(2))
            way(file, rng, [other for other in every if not other.is_relative_to(place)])
            if signed:
                sign_again(place)
            end = outcome(place, models[place], states[place], signed=signed)
            if marker.exists():
                end = "a payload was executed"
                marker.rmdir()
            ends[end if end in {HARMLESS, REFUSED, ANOTHER} else "wrong"] += 1
            by_way.setdefault(way.__name__, Counter())[end] += 1
            if end not in {HARMLESS, REFUSED, ANOTHER}:
                bad.append({"case": number, "model": place.name, "file": file.name, "way": way.__name__, "end": end})
            for left in set(files_of(place)) - set(original[place]):
                left.unlink()
            for name, data in original[place].items():
                if not name.exists() or name.read_bytes() != data:
                    name.write_bytes(data)
    return {"n": n, "seed": seed, "ends": dict(ends), "by_way": {way: dict(c) for way, c in by_way.items()}, "bad": bad}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="200 alterations")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "damaged_models.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    found = run(200 if args.quick else args.n, args.seed)
    found["seconds"] = round(time.perf_counter() - started, 1)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["bad"] else 0)


if __name__ == "__main__":
    main()
