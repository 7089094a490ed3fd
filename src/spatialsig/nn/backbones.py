"""Image networks by name: from timm, from transformers, from the user, or a table in place of one.

Floor 1, above the ground floor. Called as sp.register_backbone; used by 13 modules of 7 rooms.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from spatialsig._arguments import Key, checked
from spatialsig._checks import did_you_mean, warn
from spatialsig.errors import InputError
from spatialsig.nn.external import ExternalBackbone, Inputs, TableBackbone
from spatialsig.nn.libraries import timm_network, transformers_network

TABLE, REGISTERED, MEMORY = "table", "registered", "memory"
NETWORKS = {"timm": timm_network, "transformers": transformers_network}  # by library
LIBRARIES = (*NETWORKS, REGISTERED, TABLE)
SCALE_TOLERANCE = 1.2  # ratio of two resolutions up to which nuclei look alike

_FACTORIES: dict[str, Callable[[], Any]] = {}


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone's name in parts; as text it says all that is needed to build the network again, without weights.

    Parameters
    ----------
    library
        One of :data:`LIBRARIES`, or ``"memory"`` for an object that nobody can build again.
    name
        What the library calls it.
    options
        Architecture, inputs, and whatever else the library needs; JSON-able.
    """

    library: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """As text, to be read by :meth:`parse`."""
        if not self.options:
            return f"{self.library}:{self.name}"
        return f"{self.library}:{json.dumps({'name': self.name, **self.options}, sort_keys=True)}"

    @classmethod
    def parse(cls, text: str) -> BackboneSpec:
        """Read ``library:name`` or ``library:{"name": ..., options}``.

        Raises
        ------
        InputError
            If it is neither.
        """
        if text in _FACTORIES:  # as a configuration writes MODULE:FUNCTION
            return cls(REGISTERED, text)
        library, colon, rest = text.partition(":")
        if not colon or not rest or library not in (*LIBRARIES, MEMORY):
            known = ", ".join(repr(f"{name}:...") for name in LIBRARIES)
            msg = f"backbone {text!r} is not known; wanted 'vit', or one of {known}.{did_you_mean(library, ('vit', *LIBRARIES))}"
            raise InputError(msg)
        if not rest.startswith("{"):
            return cls(library, rest)
        try:
            options = json.loads(rest)
            return cls(library, str(options.pop("name")), options)
        except (ValueError, KeyError, RecursionError) as error:
            msg = f"backbone {text[:80]!r} cannot be read: {error!r}."
            raise InputError(msg) from error


def build_backbone(
    spec: str | nn.Module | Callable[..., Any],
    *,
    um_per_px: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_px: int | None = None,
    pool: str | None = None,
    pretrained: bool = True,
    download: bool = False,
) -> nn.Module:
    """An image network with ``num_features``, ``takes_tokens``, ``um_per_px`` and ``spec``.

    Parameters
    ----------
    spec
        - ``"timm:NAME"`` (weights from the local cache) or ``"timm:NAME@FILE"`` (weights of a file);
        - ``"transformers:NAME"`` (from the local cache) or ``"transformers:DIRECTORY"``;
        - ``"registered:NAME"``, see :func:`register_backbone`;
        - ``"table:KEY"``: no network, features of a table take the place of the image;
        - any module or callable, which takes scaled RGB ``(b, 3, h, w)``. A model with it works, but cannot be saved.
          A module that has ``num_features`` and ``takes_tokens`` is returned as it is.
    um_per_px
        Resolution that the network was trained at.
    mean, std
        Scale of red, green and blue, in shares of 255; None takes what the weights come with, else that of ImageNet.
    input_px
        Edge that patches are resized to; None takes what the weights come with, else patches as they are.
    pool
        ``"class"`` or ``"mean"`` of tokens; None takes the class token where there is one. timm pools by itself.
    pretrained
        Load weights; False leaves them random, to be loaded from a model directory.
    download
        Fetch missing weights from the hub; otherwise nothing is ever downloaded.

    Returns
    -------
    The network, in evaluation mode.

    Raises
    ------
    InputError
        If the name is unknown, the package is not installed, or its output is not of a shape that is known.
    FileMissingError
        If weights are not here.
    """
    given = {"um_per_px": um_per_px, "mean": mean, "std": std, "input_px": input_px, "pool": pool}
    chosen = {name: value for name, value in given.items() if value is not None}
    if not isinstance(spec, str):
        return _own(spec, BackboneSpec(MEMORY, type(spec).__name__), chosen)
    parsed = BackboneSpec.parse(spec)
    if parsed.library == TABLE:
        return _table(parsed)
    if parsed.library == MEMORY:
        msg = (
            f"the backbone of this model was an object of type {parsed.name}, which cannot be built again from its "
            "name; see `sp.register_backbone`."
        )
        raise InputError(msg)
    if parsed.library == REGISTERED:
        return _own(_factory(parsed.name)(), parsed, parsed.options.get("inputs", {}) | chosen)
    found = NETWORKS[parsed.library](parsed.name, parsed.options, pretrained=pretrained, download=download)
    inputs = _changed(found.inputs, parsed.options.get("inputs", {}) | chosen)
    options = {**found.options, "inputs": asdict(inputs)}
    return ExternalBackbone(found.model, str(BackboneSpec(parsed.library, found.name, options)), inputs)


def _refuse_factory(spec: Callable[..., Any]) -> None:
    """Raise :class:`InputError` for what makes a network instead of being one."""
    if isinstance(spec, type):
        msg = f"`backbone={spec.__name__}` is a class; give an object of it, `{spec.__name__}(...)`."
        raise InputError(msg)
    try:
        inspect.signature(spec).bind(None)
    except TypeError:
        msg = (
            f"`backbone={getattr(spec, '__name__', spec)!r}` cannot be called with one batch of images; give the network, not "
            "a function that makes it, or call `sp.register_backbone('NAME', function)` and pass 'registered:NAME'."
        )
        raise InputError(msg) from None
    except ValueError:  # written in C: only a call would tell
        pass


@checked
def register_backbone(name: Key, factory: Callable[[], Any]) -> None:
    """Let ``"registered:NAME"`` stand for what ``factory()`` builds: a module that takes scaled RGB ``(b, 3, h, w)``.

    A model directory holds data only and never says which code to run. So that a model with a network of your own can be
    loaded, register it under the same name before.

    Parameters
    ----------
    name
        Name, not yet taken by another factory.
    factory
        Builds the network; when a model is loaded its weights are replaced.

    Raises
    ------
    InputError
        If the name is taken, or ``factory`` needs arguments.
    """
    _refuse_arguments(factory)
    if _FACTORIES.setdefault(name, factory) is not factory:
        msg = f"backbone name {name!r} is taken by another factory; registered: {sorted(_FACTORIES)}."
        raise InputError(msg)


def _refuse_arguments(factory: Callable[[], Any]) -> None:
    """Raise :class:`InputError` for what cannot build a network from nothing."""
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        msg = (
            f"`factory={getattr(factory, '__name__', factory)!r}` of `sp.register_backbone` is called without arguments, and needs some "
            f"({error}). Give a function that builds the network, such as `lambda: Network(width=64)`."
        )
        raise InputError(msg) from None
    except ValueError:  # written in C: only a call would tell
        pass


def is_own(backbone: Any) -> bool:
    """Whether a network is one that the user wrote, whose weights nobody here knows to be trained."""
    return not isinstance(backbone, str) or BackboneSpec.parse(backbone).library == REGISTERED


def warn_of_scale(backbone: nn.Module, *, patch_px: int, um_per_px: float) -> None:
    """Warn where a network will see patches at a resolution clearly other than the one it was trained at."""
    wanted, inputs = getattr(backbone, "um_per_px", None), getattr(backbone, "inputs", None)
    if not wanted:
        return
    shown_px = patch_px if not isinstance(inputs, Inputs) or inputs.input_px is None else inputs.input_px
    seen = um_per_px * patch_px / shown_px
    if max(seen / wanted, wanted / seen) > SCALE_TOLERANCE:
        msg = (
            f"the backbone was trained at {wanted:g} µm/px and will see {seen:g} µm/px (patches of {patch_px} px at "
            f"{um_per_px:g} µm/px, shown as {shown_px} px): its features are made for nuclei of another size. Cut "
            f"patches with `sp.pp.make_patches(..., patch_px={shown_px}, um_per_px={wanted:g})`."
        )
        warn(msg)


def check_can_be_saved(spec: str) -> None:
    """Raise :class:`InputError` for a backbone that could not be built again when the model is loaded."""
    if spec.startswith(f"{MEMORY}:"):
        msg = (
            f"the backbone is an object of type {spec.partition(':')[2]}, which cannot be built again when the model is "
            "loaded. Call `sp.register_backbone('NAME', factory)` and train with "
            "`backbone='registered:NAME'`."
        )
        raise InputError(msg)


def table_key(spec: str) -> str | None:
    """Table that a model reads in place of images; None for one that reads images."""
    return BackboneSpec.parse(spec).name if spec.startswith(f"{TABLE}:") else None


def table_backbone(key: str, num_features: int) -> TableBackbone:
    """What takes the place of a network in a model that learns from table ``key`` of ``num_features`` columns."""
    return TableBackbone(key, num_features, str(BackboneSpec(TABLE, key, {"num_features": num_features})))


def _own(network: Any, spec: BackboneSpec, changes: dict[str, Any]) -> nn.Module:
    """A network of the user's, wrapped unless it has the interface already."""
    if isinstance(network, nn.Module) and hasattr(network, "num_features") and hasattr(network, "takes_tokens"):
        if not hasattr(network, "spec"):
            network.spec = str(spec)  # type: ignore[assignment]
        return network
    if not callable(network):
        msg = f"backbone of type {type(network).__name__}; wanted a name, a module or a callable."
        raise InputError(msg)
    _refuse_factory(network)
    inputs = _changed(Inputs(), changes)
    options = {"inputs": asdict(inputs)} if changes and spec.library == REGISTERED else {}
    return ExternalBackbone(network, str(replace(spec, options=options)), inputs)


def _table(spec: BackboneSpec) -> TableBackbone:
    width = spec.options.get("num_features")
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        msg = f"backbone '{spec}' says no `num_features`; `sp.tl.train_vit(backbone='table:KEY')` reads it from the table."
        raise InputError(msg)
    return table_backbone(spec.name, width)


def _factory(name: str) -> Callable[[], Any]:
    if name not in _FACTORIES:
        msg = (
            f"no backbone is registered as {name!r} (registered: {sorted(_FACTORIES)}); call "
            f"`sp.register_backbone({name!r}, factory)` first; on the command line, `spatialsig --backbone MODULE:FUNCTION COMMAND`."
        )
        raise InputError(msg)
    return _FACTORIES[name]


def _changed(inputs: Inputs, changes: dict[str, Any]) -> Inputs:
    try:
        plain: dict[str, Any] = {
            name: tuple(value) if name in ("mean", "std") else value for name, value in changes.items()
        }
        return replace(inputs, **plain)
    except TypeError as error:
        msg = f"inputs {changes} of a backbone: {error}."
        raise InputError(msg) from error
