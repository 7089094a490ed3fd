"""A Vitessce page of one store, with its H&E and scores over it.

Floor 7, above evaluation. Called as sp.pl.vitessce.
"""

from __future__ import annotations

from typing import Any

from spatialsig import _keys
from spatialsig._arguments import Key, checked
from spatialsig.errors import InputError
from spatialsig.pl.drawing.vitessce_views import Shown, address_of, shown_of, view_config
from spatialsig.slide.slides import Data


@checked
def vitessce(
    data: Data,
    color: Key | None = None,
    *,
    table_key: Key | None = None,
    image_key: Key = _keys.IMAGE,
    url: Key | None = None,
) -> Any:
    """Configure Vitessce to show a store in a notebook or a browser: its H&E, and patches or cells coloured by a score.

    The browser reads the store itself, piece by piece; nothing is converted or copied.

    Parameters
    ----------
    data
        Path of a store, or the SpatialData read from it (one slide); not modified.
    color
        Signature that colours the patches or cells at first; the list beside the slide chooses others. None takes the first.
    table_key
        Table of scores, measured or predicted, of patches or of cells; what it annotates is drawn. None takes
        ``"signatures_pred"`` where it is there, and otherwise ``"signatures"``.
    image_key
        H&E below it.
    url
        Address at which browsers reach the folder that the store lies in, such as ``"https://our-lab.org/stores"``. None
        serves the store from this machine, as ``config.widget()`` and ``config.web_app()`` do.

    Returns
    -------
    A ``vitessce.VitessceConfig`` [1]_ of the slide, the list of the signatures, the layers, and a note. ``config.widget()`` shows it
    in a notebook, ``config.to_dict()`` is what vitessce.io takes. The note says what Vitessce shows wrongly: its scale bar takes units of
    ``global`` for µm, and what has no value (NaN) the colour of the lowest.

    Raises
    ------
    InputError
        If ``data`` is more than one slide, is in memory only, or the package vitessce is not installed; if the rows of the table
        are not the shapes in their order.
    KeyMissingError
        If the image, the table or the signature does not exist; the message lists what does.

    References
    ----------
    .. [1] Keller MS, Gold I, McCallum C, et al. Vitessce: integrative visualization of multimodal and spatially resolved single-cell
       data. Nature Methods 22, 63-67 (2025). https://doi.org/10.1038/s41592-024-02436-x

    Examples
    --------
    >>> import spatialsig as sp
    >>> config = sp.pl.vitessce("S1.zarr", "Immune_T")  # doctest: +SKIP
    >>> config.widget()  # doctest: +SKIP
    """
    shown = shown_of(data, color, table_key=table_key, image_key=image_key)
    config = view_config(shown, "" if url is None else address_of(shown, url))
    try:
        import vitessce as package

        return _served_here(package, shown, config) if url is None else package.VitessceConfig.from_dict(config)
    except ImportError as error:  # of the package, or of what it serves a store with
        msg = (
            f"`sp.pl.vitessce` needs the package vitessce ({error}): pip install 'spatialsig[vitessce]', on Python 3.12 or later. "
            "`spatialsig vitessce STORE --url BASE` writes the configuration for vitessce.io without it."
        )
        raise InputError(msg) from error


def _served_here(package: Any, shown: Shown, config: dict[str, Any]) -> Any:
    """The configuration, with the store as an object that the package serves."""
    (dataset,) = config["datasets"]
    options = dataset.pop("files")[0]["options"]
    made = package.VitessceConfig.from_dict(config | {"datasets": [dataset | {"files": []}]})
    drawn = "obs_spots_path" if shown.circles else "obs_segmentations_path"
    wrapper = package.SpatialDataWrapper(
        sdata_path=str(shown.store),
        image_path=options["image"]["path"],
        table_path=f"tables/{shown.table_key}",
        obs_feature_matrix_path=options["obsFeatureMatrix"]["path"],
        coordinate_system=_keys.GLOBAL,
        coordination_values=shown.coordination,
        **{drawn: f"{shown.kind}/{shown.region}"},
    )
    made.config["datasets"][0].add_object(wrapper)
    return made
