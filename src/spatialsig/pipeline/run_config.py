"""Configuration of a run: every field has a default but the bundles and the output.

Floor 11, above report. Used by 7 modules of cli, pipeline.
"""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from spatialsig._arguments import Seed
from spatialsig._checks import comma_hint, nearest
from spatialsig._known import what_is
from spatialsig._misfits import in_words, meant, place_in
from spatialsig._text import decoded
from spatialsig._yaml import read_yaml
from spatialsig.errors import FileMissingError, InputError
from spatialsig.pipeline.own_backbones import use_backbone
from spatialsig.pipeline.run_options import FUNCTIONS, check_section

if TYPE_CHECKING:
    from collections.abc import Sequence


def _switch(value: Any) -> Any:
    """``{}`` for true, None for false: a step that is done with its defaults, or not at all."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


Options: TypeAlias = Annotated[dict[str, Any] | None, BeforeValidator(_switch)]  # None: the step is left out


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CellsConfig(_Section):
    """Which cells are kept."""

    min_counts: int = Field(10, ge=0)
    min_genes: int = Field(5, ge=0)


class SplitConfig(_Section):
    """How slides are held out."""

    by: Literal["patient", "slide", "block"] = "patient"
    n_folds: int = Field(4, ge=2)
    test_fold: int = Field(0, ge=0)
    block_um: float = Field(1000.0, gt=0)
    buffer_um: float = Field(256.0, ge=0)


class GenesConfig(_Section):
    """Genes the autoencoder may see."""

    n_top_genes: int = Field(2000, ge=2)


class PatchesConfig(_Section):
    """How the H&E is cut."""

    patch_px: int = Field(224, gt=0)
    um_per_px: float = Field(0.5, gt=0)
    stride_um: float | None = Field(None, gt=0)
    min_tissue: float = Field(0.25, ge=0, le=1)
    normalize_stain: bool = False


class LabelsConfig(_Section):
    """What is predicted."""

    signatures: str | dict[str, list[str] | dict[str, float]] = "tumour_microenvironment"
    stat: Literal["mean", "median"] = "mean"
    min_cells: int = Field(10, ge=1)
    min_genes: int = Field(3, ge=1)
    min_fraction: float = Field(0.5, ge=0, le=1)
    gene_symbols: str | None = None


class RunConfig(_Section):
    """One run of the pipeline.

    ``autoencoder`` and ``vit`` hold further keywords of :func:`spatialsig.tl.train_autoencoder` and
    :func:`spatialsig.tl.train_vit`. Steps that are left out by default are done where their section holds the keywords of a
    function, or just ``true``: ``tissue`` of :func:`spatialsig.pp.find_tissue`, ``patch_qc`` of
    :func:`spatialsig.pp.qc_patches`, ``features`` of :func:`spatialsig.tl.embed_patches`, ``ensemble`` of
    :func:`spatialsig.tl.train_ensemble`, ``calibration`` of :func:`spatialsig.tl.calibrate`, ``cross_validation`` of
    :func:`spatialsig.tl.cross_validate`.
    """

    bundles: Path
    out: Path
    title: str = "Molecular signatures from H&E"
    synthetic: bool = False
    seed: Seed = 0
    check_alignment: bool = True  # measure the shift of every H&E; about 20 s for each slide of 3 mm²
    cells: CellsConfig = CellsConfig()
    split: SplitConfig = SplitConfig()
    genes: GenesConfig = GenesConfig()
    tissue: Options = None
    patches: PatchesConfig = PatchesConfig()
    patch_qc: Options = None
    labels: LabelsConfig = LabelsConfig()
    autoencoder: dict[str, Any] = Field(default_factory=dict)
    features: Options = None
    vit: dict[str, Any] = Field(default_factory=dict)
    ensemble: Options = None
    calibration: Options = None
    cross_validation: Options = None


def _check_together(config: RunConfig, path: Path) -> None:
    """Refuse what would fail hours later: a fold that there is not, options that the trainings do not have, or not so."""
    if config.split.test_fold >= config.split.n_folds:
        msg = (
            f"configuration {path}: `split.test_fold` is {config.split.test_fold}, but must be below `split.n_folds`, "
            f"{config.split.n_folds}."
        )
        raise InputError(msg)
    for section in FUNCTIONS:
        if (options := getattr(config, section)) is not None:
            check_section(section, options, where=f"configuration {path}")
    held_out = config.vit.get("validation_fold")
    if held_out is not None and (held_out == config.split.test_fold or held_out >= config.split.n_folds):
        msg = (
            f"configuration {path}: `vit.validation_fold` is {held_out}; wanted a fold below `split.n_folds`, {config.split.n_folds}, "
            f"other than `split.test_fold`, {config.split.test_fold}."
        )
        raise InputError(msg)
    if config.calibration is not None and "validation_fold" not in config.vit:
        msg = (
            f"configuration {path}: `calibration` wants patches that train nothing and judge nothing: set `vit.validation_fold` "
            "to a fold of its own."
        )
        raise InputError(msg)


def _fields_at(steps: Sequence[int | str]) -> list[str]:
    """Fields of the configuration, or of one of its sections."""
    if not steps:
        return list(RunConfig.model_fields)
    section = RunConfig.model_fields[str(steps[0])].annotation if str(steps[0]) in RunConfig.model_fields else None
    return list(getattr(section, "model_fields", {}))


def _misfits(loaded: dict[str, Any], error: ValidationError) -> str:
    """Each field that does not fit, what stands there, and what is wanted."""
    wanted: dict[str, list[str]] = {}
    hints: dict[str, str] = {}
    for each in error.errors():
        steps, held = place_in(loaded, each["loc"])
        if each["type"] == "missing":
            wanted[f"`{'.'.join(map(str, each['loc']))}` is missing"] = []
        elif each["type"] == "extra_forbidden":
            near = nearest(str(steps[-1]), _fields_at(steps[:-1]))
            hint = f"; did you mean {near!r}?" if near else ""
            wanted[f"`{'.'.join(map(str, steps))}` is not known{hint}"] = []
        else:
            place = f"`{'.'.join(map(str, steps))}` is {reprlib.repr(held)}"
            words = wanted.setdefault(place, [])
            number = each["type"].startswith(("float_", "int_"))
            words.append(in_words(each["msg"]) + (comma_hint(held) if number else ""))
            hints[place] = hints.get(place) or meant(held, words[-1])
    return "; ".join(
        f"{field}, but must be {' or '.join(dict.fromkeys(words))}{hints[field]}" if words else field
        for field, words in wanted.items()
    )


def read_config(path: str | Path) -> RunConfig:
    """Read a YAML configuration; relative paths are taken from the file's own directory.

    Raises :class:`FileMissingError` without the file, :class:`InputError` if it is not YAML, or fields are unknown,
    missing or out of range; the message names each.
    """
    path = Path(path)
    if not path.is_file():
        there = f"is not a file; wanted one in YAML.{what_is(path)}" if path.exists() else "does not exist;"
        msg = f"configuration {path} {there} `spatialsig init` writes one."
        raise FileMissingError(msg)
    try:
        loaded = read_yaml(decoded(path), settings=True)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        msg = f"configuration {path} is not valid YAML: {error}"
        raise InputError(msg) from error
    if not isinstance(loaded, dict):
        msg = f"configuration {path} must hold `name: value` pairs; got {type(loaded).__name__}."
        raise InputError(msg)
    try:
        config = RunConfig(**loaded)
    except ValidationError as error:
        msg = f"configuration {path}: {_misfits(loaded, error)}. Known fields: {sorted(RunConfig.model_fields)}."
        raise InputError(msg) from error
    here = path.resolve().parent
    for section in (config.vit, config.features or {}):
        use_backbone(section.get("backbone"), folder=here)
    _check_together(config, path)
    labels = config.labels
    if isinstance(labels.signatures, str) and (here / labels.signatures).is_file():
        labels = labels.model_copy(update={"signatures": str(here / labels.signatures)})
    return config.model_copy(update={"bundles": here / config.bundles, "out": here / config.out, "labels": labels})
