"""Sections of the configuration that hold keywords of the functions a run calls, checked before anything is done.

Floor 11, above report. Used by pipeline/run_config.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialsig import pp, tl
from spatialsig._arguments import fitting
from spatialsig._checks import check_options, option_names
from spatialsig.errors import InputError
from spatialsig.expression import AutoencoderOptions
from spatialsig.inference.vit import VitOptions
from spatialsig.nn.backbones import build_backbone
from spatialsig.train import fit_autoencoder, fit_vit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# section -> functions whose keywords it may hold
FUNCTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    "tissue": (pp.find_tissue,),
    "patch_qc": (pp.qc_patches,),
    "autoencoder": (tl.train_autoencoder, fit_autoencoder),
    "features": (tl.embed_patches, build_backbone),
    "vit": (tl.train_vit, fit_vit),
    "ensemble": (tl.train_ensemble,),
    "calibration": (tl.calibrate,),
    "cross_validation": (tl.cross_validate,),
}
_TOGETHER: dict[str, Callable[..., object]] = {"autoencoder": AutoencoderOptions.of, "vit": VitOptions.of}
POSITIONAL = {"features": "backbone"}  # argument of a function that has no default
_NAMES = "nothing: names are those of the run"
# keyword -> where it stands in the configuration instead
_OF_THE_RUN = {
    "seed": "`seed`", "test_fold": "`split.test_fold`", "signatures": "`labels.signatures`",
    "gene_symbols": "`labels.gene_symbols`", "key_added": _NAMES, "signatures_key": _NAMES, "patches_key": _NAMES,
    "table_key": _NAMES, "qc_key": _NAMES, "skip_done": "nothing: a run skips what is done",
}  # fmt: skip
_OF_SECTION = {
    "ensemble": {"run_dir": "nothing: it is kept in `out`", "use_rep": "`vit.use_rep`"},
    "cross_validation": {
        "run_dir": "nothing: it is kept in `out`", "use_rep": "`vit.use_rep`", "autoencoder": "`autoencoder`",
    },
    "patch_qc": {"model": "nothing: a run measures quality before it trains"},
    "calibration": {"use_rep": "nothing: the run predicts from the H&E alone", "fold": "`vit.validation_fold`"},
}  # fmt: skip


def check_section(section: str, options: Mapping[str, Any], *, where: str) -> None:
    """Refuse keywords that the functions of a section do not have, that the run decides, or that do not fit."""
    decided = _OF_THE_RUN | _OF_SECTION.get(section, {})
    own = sorted(decided.keys() & options.keys())
    if own:
        msg = f"{where}: `{section}.{own[0]}` is decided by the run: give it as {decided[own[0]]}."
        raise InputError(msg)
    named = [POSITIONAL[section]] if section in POSITIONAL else []
    names = {function: option_names(function, without=decided) for function in FUNCTIONS[section]}
    check_options(options, {*named, *(name for of in names.values() for name in of)}, function=f"{where}: {section}")
    if missing := [name for name in named if name not in options]:
        msg = f"{where}: `{section}.{missing[0]}` is missing; give it, or leave `{section}` out."
        raise InputError(msg)
    fit: dict[str, Any] = {}
    for function, of in names.items():
        given = {name: value for name, value in options.items() if name in (*of, *named)}
        fit |= fitting(function, given, of=f"{where}: {section}")
    if section in _TOGETHER:
        try:
            _TOGETHER[section](**fit)  # which checks choices, and what goes with what
        except InputError as error:
            msg = f"{where}: {section}: {error}"
            raise InputError(msg) from error
