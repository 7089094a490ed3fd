from pathlib import Path

import pytest

from spatialsig.errors import FileMissingError, InputError
from spatialsig.pipeline import read_config


def test_paths_are_taken_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "bundles: in/bundles.csv\nout: results\npatches: {patch_px: 112, um_per_px: 1.0}\n"
    )
    config = read_config(tmp_path / "c.yaml")
    assert config.bundles == tmp_path / "in" / "bundles.csv"
    assert config.out == tmp_path / "results"
    assert (config.patches.patch_px, config.split.by, config.cells.min_counts) == (112, "patient", 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: r", "`bundles` is missing"),
        ("bundles: b\nout: r\npatch: 3", r"`patch` is not known.*Known fields: \['autoencoder'"),
        ("bundles: b\nout: r\npatches: {patch_px: -1}", "`patches.patch_px` is -1, but must be greater than 0"),
        (
            "bundles: b\nout: r\nsplit: {by: random}",
            "`split.by` is 'random', but must be 'patient', 'slide' or 'block'",
        ),
        (
            "bundles: b\nout: r\nlabels: {signatures: {T: 3}}",
            r"`labels.signatures.T` is 3, but must be a valid list or a valid dictionary",
        ),
        ("bundles: b\nout: r\nout: s", "'out' stands there twice"),
        ("- a\n- b", "must hold `name: value` pairs; got list"),
        ("a: [", "is not valid YAML"),
        ("[" * 3000, "is not valid YAML"),
        (
            "bundles: b\nout: r\npatches: {um_per_px: '0,5'}",
            "`patches.um_per_px` is '0,5', but must be a valid number.*: write 0.5, with a decimal point",
        ),
        (
            "bundles: b\nout: r\nsplit: {n_folds: '1,000'}",
            "`split.n_folds` is '1,000', but must be a valid integer.*: write 1.000, with a decimal point",
        ),
        (
            "bundles: b\nout: r\nvit:\n  learning_rate: 0,001",
            "`learning_rate='0,001'` of `configuration .*c.yaml: vit` must be a valid number: write 0.001, with a decimal",
        ),
        (
            "bundles: b\nout: r\nautoencoder: {n_latent: 0}",
            "`n_latent=0` of `.*c.yaml: autoencoder` must be greater than",
        ),
        ("bundles: b\nout: r\nvit: {size: nope}", "c.yaml: vit: `size='nope'`.*'tiny', 'small', 'base'"),
        ("bundles: b\nout: r\nvit: {fusion: sum}", "c.yaml: vit: `fusion='sum'`"),
        ("bundles: b\nout: r\nautoencoder: {loss: huber}", "c.yaml: autoencoder: `loss='huber'`"),
    ],
)
def test_every_wrong_field_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / "c.yaml")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match="does not exist"):
        read_config(tmp_path / "none.yaml")
