import json

import numpy as np
import pytest
import torch
from scipy import sparse

from spatialsig.errors import FileMissingError, InputError
from spatialsig.models import Autoencoder, SignatureViT
from spatialsig.models.record import write_record
from spatialsig.nn.autoencoder import AutoencoderConfig

GENES = [f"G{k}" for k in range(12)]


@pytest.fixture
def counts() -> sparse.csr_matrix:
    return sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (20, 12)).astype(np.float32))


@pytest.fixture
def model() -> Autoencoder:
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    config = AutoencoderConfig(hidden=(16, 8), n_latent=3)
    return Autoencoder(
        config, GENES, mean=rng.random(12), std=rng.random(12) + 0.5, run={"train": ["S1"], "n": np.int64(3)}
    )


def zscores(model: Autoencoder, counts: sparse.csr_matrix) -> np.ndarray:
    dense = counts.toarray().astype(np.float64)
    return (np.log1p(1e4 * dense / dense.sum(axis=1, keepdims=True)) - model.mean) / model.std


def test_latent_and_error_are_those_of_the_network_on_z_scores(model: Autoencoder, counts: sparse.csr_matrix) -> None:
    z = torch.from_numpy(zscores(model, counts)).float()
    with torch.no_grad():
        code, back = model.net.encode(z), model.net(z)
    np.testing.assert_allclose(model.get_latent_representation(counts), code, atol=1e-5)
    np.testing.assert_allclose(model.reconstruct(counts), back, atol=1e-5)
    assert model.get_reconstruction_error(counts) == pytest.approx(float(((back - z) ** 2).mean()), rel=1e-4)


def test_batches_and_empty_cells_change_nothing(model: Autoencoder, counts: sparse.csr_matrix) -> None:
    whole = model.get_latent_representation(counts)
    np.testing.assert_allclose(model.get_latent_representation(counts, batch_size=7), whole, atol=1e-6)
    empty = sparse.csr_matrix((1, 12), dtype=np.float32)
    assert np.isfinite(model.get_latent_representation(empty)).all()
    assert model.get_latent_representation(counts[:0]).shape == (0, 3)


def test_columns_are_matched_by_name(model: Autoencoder, counts: sparse.csr_matrix) -> None:
    names = [*GENES[::-1], "OTHER"]
    shuffled = sparse.hstack([counts[:, ::-1], np.ones((20, 1))], format="csr")
    columns = model.align_genes(names)
    assert [names[column] for column in columns] == GENES
    np.testing.assert_array_equal(
        model.get_latent_representation(shuffled[:, columns]), model.get_latent_representation(counts)
    )


def test_save_and_load_are_bit_exact(model: Autoencoder, counts: sparse.csr_matrix, tmp_path) -> None:
    model.save(tmp_path / "ae")
    back = Autoencoder.load(tmp_path / "ae", genes=GENES[::-1])
    assert back.genes == model.genes
    assert back.config == model.config
    assert back.run == {"train": ["S1"], "n": 3}
    for name, tensor in model.net.state_dict().items():
        assert torch.equal(back.net.state_dict()[name], tensor)
    np.testing.assert_array_equal(back.get_latent_representation(counts), model.get_latent_representation(counts))
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".pt", ".pkl", ".ckpt"}]


def test_saving_again_replaces_and_leaves_nothing_beside(model: Autoencoder, tmp_path) -> None:
    model.save(tmp_path / "ae")
    model.run = {"second": True}
    model.save(tmp_path / "ae", overwrite=True)
    assert Autoencoder.load(tmp_path / "ae").run == {"second": True}
    assert [path.name for path in tmp_path.iterdir()] == ["ae"]


def test_a_failed_save_keeps_the_old_model(model: Autoencoder, tmp_path) -> None:
    model.save(tmp_path / "ae")
    model.run = {"bad": object()}
    with pytest.raises(InputError, match="cannot write object"):
        model.save(tmp_path / "ae", overwrite=True)
    assert Autoencoder.load(tmp_path / "ae").run["train"] == ["S1"]
    assert [path.name for path in tmp_path.iterdir()] == ["ae"]


def test_a_foreign_directory_is_never_replaced(model: Autoencoder, tmp_path) -> None:
    (tmp_path / "data.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is no model directory"):
        model.save(tmp_path)
    assert (tmp_path / "data.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "genes.json", "scaler.npz"])
def test_an_altered_file_is_refused(model: Autoencoder, tmp_path, name: str, flip_bit) -> None:
    model.save(tmp_path / "ae")
    flip_bit(tmp_path / "ae" / name)
    with pytest.raises(InputError, match=f"{name} is not what was saved"):
        Autoencoder.load(tmp_path / "ae")


def resealed(directory, name: str, data: bytes) -> None:
    """Alter a file and make its digest fit, as somebody would who edits a model on purpose."""
    (directory / name).write_bytes(data)
    record = json.loads((directory / "run.json").read_text())
    write_record(directory, set(record["sha256"]) - {"run.json"}, record["run"])


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("genes.json", lambda text: text.replace("G11", "G10"), "wanted a list of distinct names"),
        ("genes.json", lambda text: text.replace(',\n "G11"', ""), r"scaler.npz holds .*wanted"),
        ("genes.json", lambda _: "{", "genes.json is not JSON"),
        ("genes.json", lambda _: "{}", "holds a dict; wanted a list"),
        ("config.json", lambda text: text.replace('"n_latent": 3', '"n_latent": 4'), "tensors differ in name, shape"),
        ("config.json", lambda text: text.replace('"n_latent": 3', '"n_latent": 1e300'), "must be a valid integer"),
        ("config.json", lambda text: text.replace('"n_latent": 3', '"n_latent": "3"'), "must be a valid integer"),
        ("config.json", lambda text: text.replace("n_latent", "n_hidden"), r"unknown settings \['n_hidden'\]"),
        ("config.json", lambda text: text.replace("Autoencoder", "Other"), "a 'Other' of format 1; wanted"),
        ("weights.safetensors", lambda _: "pickle", "is not a safetensors file"),
        ("scaler.npz", lambda _: "no zip", "cannot be read as plain arrays"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(model: Autoencoder, tmp_path, name: str, edit, message: str) -> None:
    model.save(tmp_path / "ae")
    text = (tmp_path / "ae" / name).read_bytes().decode("latin-1")
    resealed(tmp_path / "ae", name, edit(text).encode("latin-1"))
    with pytest.raises(InputError, match=message):
        Autoencoder.load(tmp_path / "ae")


def test_arrays_with_pickles_are_never_loaded(model: Autoencoder, tmp_path) -> None:
    model.save(tmp_path / "ae")
    np.savez(tmp_path / "evil.npz", mean=np.array([print], dtype=object), std=np.ones(12))
    resealed(tmp_path / "ae", "scaler.npz", (tmp_path / "evil.npz").read_bytes())
    with pytest.raises(InputError, match="cannot be read as plain arrays"):
        Autoencoder.load(tmp_path / "ae")


def test_nan_weights_are_refused(model: Autoencoder, tmp_path) -> None:
    model.net.enc[0].weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"NaN or infinite weights in 1 tensors .*enc.0.weight"):
        model.save(tmp_path / "ae")  # those of a file: test_damaged.py
    assert not (tmp_path / "ae").exists()


def test_missing_files_are_all_named(model: Autoencoder, tmp_path) -> None:
    model.save(tmp_path / "ae")
    (tmp_path / "ae" / "genes.json").unlink()
    (tmp_path / "ae" / "scaler.npz").unlink()
    with pytest.raises(FileMissingError, match=r"scaler.npz.*genes.json"):
        Autoencoder.load(tmp_path / "ae")


def test_the_wrong_kind_and_other_genes_are_refused(model: Autoencoder, tmp_path) -> None:
    model.save(tmp_path / "ae")
    with pytest.raises(InputError, match=r"only in the model: \['G0'\], 1 only asked for: \['NEW'\]"):
        Autoencoder.load(tmp_path / "ae", genes=[*GENES[1:], "NEW"])
    with pytest.raises(
        InputError,
        match="kind 'Autoencoder', which `sp.models.Autoencoder.load` reads; wanted a SignatureViT .made by `sp.tl.train_vit`",
    ):
        SignatureViT.load(tmp_path / "ae")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, c: m.align_genes(GENES[2:]),
            r"2 of the 12 genes .* are not in the table, whose `var_names` are 10 genes: \['G0', 'G1'\]",
        ),
        (lambda m, c: m.align_genes([*GENES, "G3"]), r"more than once: \['G3'\]"),
        (lambda m, c: m.get_latent_representation(c[:, :5]), "counts of 5 genes; wanted the 12"),
        (lambda m, c: Autoencoder(m.config, GENES, mean=m.mean, std=m.std * 0), "scaler of 12 genes is not finite"),
        (lambda m, c: Autoencoder(m.config, GENES, mean=m.mean[:3], std=m.std), r"`mean` \(3,\) and `std` \(12,\)"),
        (lambda m, c: Autoencoder(m.config, ["A"] * 12, mean=m.mean, std=m.std), "got 12, 1 distinct"),
    ],
)
def test_errors(model: Autoencoder, counts: sparse.csr_matrix, call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(model, counts)
