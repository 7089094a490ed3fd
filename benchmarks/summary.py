"""The page of measured numbers, ``docs/performance.md``, from what the benchmarks recorded.

    python benchmarks/summary.py [--check]

``--check`` writes nothing and ends with 1 where the page is not what the records say.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
HEAD = """# Measured

Every number below was recorded by the command above its table, in `benchmarks/results/`, on two cores of an AMD EPYC
(AVX2, no bf16, no GPU) where no other machine is named, and this page is made from those files by `python benchmarks/summary.py`. Ratios are against the
named peer in the same run. **Bold**: the goal was missed.
"""
AT_LEAST, AT_MOST, WITHIN = "at least", "at most", "within ±"


class Row(NamedTuple):
    """What was measured, where it is in the record, and what was wanted of it: a number, or where a peer's is."""

    what: str
    path: tuple[str | int, ...]
    goal: float | tuple[str | int, ...] | None = None
    sense: str = AT_LEAST
    unit: str = ""
    digits: int = 3


class Table(NamedTuple):
    """Rows of one record."""

    title: str
    command: str
    file: str
    rows: tuple[Row, ...]


def reads(kind: str) -> tuple[Row, ...]:
    ratio = (kind, "ratios")
    default, same = "ImageTilesDataset, default", "ImageTilesDataset, 512"
    return (
        Row("default layout, beside spatialdata's loader on its default store",
            (*ratio, f"ours, zstd 512 | {default}", "ratio"), 90, unit=" x"),
        Row("the same beside its loader on chunks of 512 px",
            (*ratio, f"ours, zstd 512 | {same}", "ratio"), 30, unit=" x"),
        Row("decoding alone would allow, beside the first", (kind, "attainable", "zstd decode alone"), unit=" x"),
        Row("layout `speed`, beside spatialdata's loader on its default store",
            (*ratio, f"ours, speed 512 | {default}", "ratio"), 500, unit=" x"),
        Row("copying and checking alone would allow", (kind, "attainable", "copy and crc32c alone"), unit=" x"),
        Row("untouched default store, first epoch by blocks",
            (*ratio, f"ours, default store by blocks, first epoch | {default}", "ratio"), 40, unit=" x"),
        Row("untouched default store, once cached",
            (*ratio, f"ours, default store, cached epoch | {default}", "ratio"), 300, unit=" x"),
    )  # fmt: skip


def cells() -> tuple[Row, ...]:
    """Values of single nuclei of a held-out patient, beside the score of their patch and the ceiling."""
    rows = []
    for scale, name in (("cell", "single cells"), ("20 um", "squares of 20 µm")):
        way = ("ways", "head", scale)
        rows += [
            Row(f"mean r of the head, {name}", (*way, "mean", "r"), (*way, "mean", "r_patch")),
            Row(f"ceiling, {name}", (*way, "mean", "ceiling")),
            Row(f"least gain over the patch of six signatures, {name}", (*way, "least gain"), 0.01),
            *(
                Row(f"mean r by the map of {kind}, {name}", ("ways", f"map, {method}", scale, "mean", "r"),
                    ("ways", f"map, {method}", scale, "mean", "r_patch"))
                for kind, method in (("whole patches", "patch"), ("places", "token"))
            ),
        ]  # fmt: skip
    return (
        *rows,
        Row("telling the planted type of a cell, area under the curve", ("ways", "head", "cell", "mean", "auc"),
            ("ways", "head", "cell", "mean", "auc_patch")),
        Row("mean r of the head on nuclei that we detect, single cells", ("ways", "head, detected nuclei", "cell", "mean", "r"),
            ("ways", "head, detected nuclei", "cell", "mean", "r_patch")),
        Row("planted nuclei that are detected", ("nuclei", "recall")),
        Row("detected nuclei that are planted", ("nuclei", "precision")),
        Row("opening 300,000 coloured cells in napari, CPU time", ("napari", "cpu"), 10, AT_MOST, " s", 1),
        Row("the same, by the clock", ("napari", "wall"), 10, AT_MOST, " s", 1),
    )  # fmt: skip


def embedding() -> tuple[Row, ...]:
    """Cell types and errors of rebuilding, beside a PCA of equal width."""
    rows = [
        Row(f"cell types by neighbours, {way}{depth}", ("synthetic", way + depth, "knn_accuracy"),
            None if way in ("pca", "scvi") else ("synthetic", "pca" + depth, "knn_accuracy"), digits=4)
        for depth in ("", ", half the molecules", ", a tenth")
        for way in ("autoencoder", "autoencoder of counts", "pca", "scvi")
    ]  # fmt: skip
    errors = [
        Row("error on a held-out patient", ("synthetic", "error", "as it is")),
        Row("error on held-out cells of a breast crop", ("breast_crop",)),
        *(Row(f"error on patient {patient} of her2st", ("her2st", patient)) for patient in "BCDEFGH"),
    ]
    return (
        *rows,
        *(r._replace(path=(*r.path, "autoencoder"), goal=(*r.path, "pca"), sense=AT_MOST, digits=4) for r in errors),
    )


def falling(what: str, paths: dict[str, tuple[str | int, ...]]) -> tuple[Row, ...]:
    """Rows of which each may be at most the one before."""
    before: list[tuple[str | int, ...] | None] = [None, *paths.values()]
    return tuple(
        Row(f"{what}, {name}", path, last, AT_MOST)
        for (name, path), last in zip(paths.items(), before[:-1], strict=True)
    )


def orders() -> tuple[Row, ...]:
    ways = ("random", "block", "block, buffer", "patient")
    return (
        *falling("r of hand-made features, split by", {way: ("split", "r", way, "hand_features") for way in ways}),
        *falling("r of coordinates, split by", {way: ("split", "r", way, "coordinates") for way in ways}),
        Row("mean r of coordinates on 24 slides, by patient", ("coordinates", "r"), 0.05, WITHIN),
        *falling("r of hand-made features, H&E off by",
                 {f"{um} µm": ("shift", "r", f"{um} um") for um in (0, 10, 25, 56, 112)}),
        *falling("r of hand-made features, share of the cells that shows",
                 {share: ("signal", "r", share) for share in ("1", "0.6", "0.3")}),
        Row("the same where none does", ("signal", "r", "0"), 0.05, WITHIN),
        *(Row(f"labels against the truth, {counts} counts per cell, mean", ("statistic", "r", f"{counts} counts", "mean"),
              ("statistic", "r", f"{counts} counts", "median")) for counts in (154, 15)),
    )  # fmt: skip


def depths() -> tuple[Row, ...]:
    return tuple(
        Row(f"{what}, {counts} counts per cell", ("depths", i, key), goal, WITHIN, digits=2)
        for key, what, goal in (
            ("difference", "estimate less truth", 0.03),
            ("ratio_change", "change of r / ceiling", 0.02),
        )
        for i, counts in enumerate((154, 46, 15, 8, 3))
    )


def intervals() -> tuple[Row, ...]:
    """Coverage of intervals over patients, and whether p-values of shifted maps are uniform under the null."""
    fields = [f"{side} x {side} patches, smooth over {sigma}{edge}"
              for side, sigma in ((20, 0), (20, 1), (20, 2), (20, 3), (40, 2), (40, 4)) for edge in ("", ", ragged")]  # fmt: skip
    return (
        *(Row(f"95 % intervals that hold the truth, {n} patients", ("coverage", i, "fisher"), 0.93)
          for i, n in enumerate((2, 3, 4, 6, 8, 12))),
        *(Row(f"KS p of the p-values, {name}", ("null", i, "ks_p"), 0.01) for i, name in enumerate(fields)),
    )  # fmt: skip


def trust() -> tuple[Row, ...]:
    """Slides of other kinds told from new ones of the same kind; slides that triage accepts though wrong."""
    kinds = ("real H&E", "IHC (simulated)", "blurred, 2 µm", "px half as large", "px twice as large", "PAS (simulated)",
             "trichrome (simulated)")  # fmt: skip
    milder = ("kinds", "blurred, 1 µm", "auroc_patches")
    rates = (0.05, 0.1, 0.2)
    return (
        *(Row(f"AUROC over patches, {kind}", ("kinds", kind, "auroc_patches"), 0.95, digits=4) for kind in kinds),
        Row("AUROC over patches, blurred, 1 µm", milder, digits=4),
        *(Row(f"slides said to lie outside, {kind}", ("kinds", kind, "slides_outside")) for kind in kinds),
        Row("slides of the same kind said to lie outside", ("false_alarms", "slides"), 0.05, AT_MOST),
        Row(
            "slides of the same kind with more than 5 % of their patches outside",
            ("false_alarms", "slides with more than 5 % of patches outside"),
            0.05,
            AT_MOST,
        ),
        *(
            Row(
                f"triage at {rate:.0%}: accepted though wrong, 20 cohorts (wanted: the rate and its binomial limit)",
                ("triage", "rates", f"{rate:g}", "accepted_and_wrong"),
                ("triage", "rates", f"{rate:g}", "limit"),
                AT_MOST,
            )
            for rate in rates
        ),
        *(
            Row(
                f"the same: rejected though right, {rate:.0%}",
                ("triage", "rates", f"{rate:g}", "rejected_and_right"),
                ("triage", "rates", f"{rate:g}", "limit"),
                AT_MOST,
            )
            for rate in rates
        ),
        *(Row(f"the same: accepted, {rate:.0%}", ("triage", "rates", f"{rate:g}", "accepted")) for rate in rates),
        Row("cost of the comparison, of the time of the default network on a CPU", ("cost", "share"), 0.03, AT_MOST),
    )


def ladder() -> tuple[Row, ...]:
    """Shares of the noise ceiling: by slides, in another stain, with and without expression, as less shows."""
    modality = ("modality", "mean", "2")
    fused = (*modality, "default: fused")
    return (
        Row("H&E alone, 6 slides", ("curve", "mean", "6", "share"), 0.95),
        Row("H&E alone, 4 slides", ("curve", "mean", "4", "share")),
        Row("H&E alone, 2 slides", ("curve", "mean", "2", "share"), 0.92),
        *(Row(f"the same with one view of a patch, {n} slides", ("curve", "mean", n, "share_one_view"))
          for n in ("6", "4", "2")),
        Row("training on 6 slides, CPU time", ("curve", "mean", "6", "cpu_minutes"), 60, AT_MOST, " min"),
        Row("least share of an epoch not spent waiting for patches", ("curve", "mean", "6", "least_busy"), 0.95),
        Row("H&E alone, 6 slides, on slides by which no setting was chosen", ("fresh", "mean", "6", "share"), 0.95),
        Row("lost in another stain", ("stain", "mean", "6", "lost"), 0.03, AT_MOST),
        Row("fused, 2 slides", fused),
        Row("expression alone, 2 slides", (*modality, "ae_only"), fused, AT_MOST),
        Row("model of H&E alone, 2 slides", (*modality, "he_only"), fused, AT_MOST),
        Row("fused model shown H&E alone, 2 slides", (*modality, "default: H&E only")),
        Row("lost by it against the model of H&E alone", (*modality, "lost without the embedding"), 0.02, AT_MOST),
        Row("fused model without modality dropout, 2 slides", (*modality, "no_dropout: fused")),
        Row("the same shown H&E alone", (*modality, "no_dropout: H&E only")),
        Row("lost by dropout and distillation, fused", (*modality, "lost by dropout"), 0.03, AT_MOST),
        *falling("H&E alone, share of the tissue that shows",
                 {share: ("signal", "mean", share, "share") for share in ("1", "0.6", "0.3")}),
        Row("the same where nothing shows", ("signal", "mean", "0", "share"), 0.05, WITHIN),
    )  # fmt: skip


def cached(ways: str) -> tuple[str | int, ...]:
    return ("ways", ways, "peak_mb")


TABLES = (
    Table("Random patches of 512 px, a scanned slide", "make bench-patch-reads", "patch_reads", reads("scan")),
    Table("The same, noise of a camera that nothing compresses", "make bench-patch-reads", "patch_reads",
          reads("camera")),
    Table("An epoch over four slides of 20,480 px", "make bench-loader", "loader", (
        Row("patches per second, threads", ("ways", "ours, threads", "patches_per_s")),
        Row("patches per second, PNG files and DataLoader", ("ways", "PNG, DataLoader", "patches_per_s")),
        Row("peak, threads", cached("ours, threads"), 1024, AT_MOST, " MiB", 4),
        Row("peak, two forked workers", cached("ours, 2 forked workers"), 1024, AT_MOST, " MiB", 4),
        Row("peak, two spawned workers (each imports torch anew)", cached("ours, 2 spawned workers"), 1024, AT_MOST,
            " MiB", 4),
    )),
    Table("Shuffling by blocks", "make bench-shuffle", "shuffle", (
        Row("correlation of labels in the stream", ("orders", "blocks, 512 px", "correlation"), 0.03, AT_MOST),
        Row("the same in the order of the rows", ("orders", "in rows", "correlation")),
        Row("loss of a network, of that after a full shuffle", ("orders", "blocks, 512 px", "network_loss_ratio"),
            1.02, AT_MOST),
        Row("loss of a linear model", ("orders", "blocks, 512 px", "linear_loss_ratio"), 1.02, AT_MOST),
        Row("loss of a linear model, patches of 224 px", ("orders", "blocks, 224 px", "linear_loss_ratio"), 1.02,
            AT_MOST),
    )),
    Table("Writing an image of 10,000 px", "make bench-layout", "layout", (
        Row("as fast as `sdata.write`", ("times_as_fast",), 3, unit=" x"),
        Row("bytes, of those of `sdata.write`", ("share_of_bytes",), 1.1, AT_MOST, " x", 4),
    )),
    Table("Importing an H&E", "make bench-import", "import_he", (
        Row("time, of spatialdata-io and `sdata.write`", ("beside_peer", "share_of_peer"), 0.5, AT_MOST, " x"),
        Row("peak at 40,000 x 30,000 px", ("whole_slide", "ours", "peak_gib"), 2, AT_MOST, " GiB"),
    )),
    Table("Importing 60 million counts of 200,000 cells", "make bench-import-counts", "import_counts", (
        Row("peak of Atera's zipped Zarr, of the matrix", ("zarr", "object", "sizes"), 1.5, AT_MOST, " x"),
        Row("the same into a store", ("zarr", "store", "sizes"), 1.5, AT_MOST, " x"),
        Row("peak of `cell_feature_matrix.h5`, of the matrix", ("h5", "object", "sizes"), 1.5, AT_MOST, " x"),
        Row("the same into a store", ("h5", "store", "sizes"), 1.5, AT_MOST, " x"),
        Row("speed of Atera's zipped Zarr", ("zarr", "object", "million_values_per_s"), unit=" million values/s"),
    )),
    Table("Training of a small image model beside a process that keeps one of two cores busy", "make bench-busy", "busy", (
        Row("as long as alone, threads as this package lets them wait", ("beside_another_times", "waiting"), 2.5, AT_MOST, " x", 2),
        Row("as long as alone, threads that spin", ("beside_another_times", "spinning"), unit=" x", digits=2),
        Row("alone, beside threads that spin", ("waiting_alone_times_spinning",), 1.15, AT_MOST, " x", 2),
    )),
    Table("Memory and time of functions on a million cells, 500 genes, beside what the process held before", "make bench-memory", "memory", (
        *(Row(f"`{name}`, MiB", ("cells", "1000000", name, "extra_mib"), 1024, AT_MOST, digits=0)
          for name in ("filter_cells", "highly_variable_genes", "score_cells", "score_cells ucell", "embed_cells",
                       "aggregate_patches", "pseudobulk", "noise_ceiling", "train_vit")),
        *(Row(f"`{name}`, which needs no counts, MiB", ("cells", "1000000", name, "extra_mib"), 150, AT_MOST, digits=0)
          for name in ("find_tissue", "make_patches", "normalize_stain", "qc_patches", "assign_cells", "split")),
        Row("slowest of the latter, times of 10,000 cells", ("most_times_without_counts", 0), 2, AT_MOST, digits=1),
    )),
    Table("Cohorts on two workers of dask, beside one slide after another", "make bench-cluster", "cluster", (
        *(Row(f"{name}, as fast", ("speed", name, "times"), 1.6, unit=" x") for name in ("import", "score", "predict")),
        *(Row(f"{name}, as fast", ("speed", name, "times"), unit=" x") for name in ("make_patches", "assign_cells", "aggregate")),
        Row("runs that ended with equal bits though a worker was killed, of 20", ("kills", "equal_bits"), 20),
        Row("slides done beside a poisoned one, of 12", ("poisoned", "done"), 11),
        *(Row(f"`{name}` of 200 tiny slides, ms of each beyond its work", ("overhead", name, "overhead_ms"), 100, AT_MOST, digits=2)
          for name in ("make_patches", "assign_cells", "score", "aggregate", "predict")),
    )),
    Table("The same, 300,000 cells of 18,000 genes", "make bench-memory", "memory_genes", (
        Row("most of any function, MiB", ("most_extra_mib", 0), 1024, AT_MOST, digits=0),
        Row("most of those that need no counts, MiB", ("most_extra_mib_without_counts", 0), 150, AT_MOST, digits=0),
    )),
    Table("From 2,000 to 60,000 px, from 100 to 100,000 patches", "make bench-patch-scaling", "patch_scaling", (
        *(Row(f"`{name}`, dearest patch beside the cheapest", ("times_of_a_patch", name), 1.2, AT_MOST, " x")
          for name in ("make_patches", "qc_patches", "normalize_stain", "predict")),
        Row("most memory of any of them, MiB", ("most_extra_mib",), 1024, AT_MOST, digits=0),
    )),
    Table("Time of a run, beside what `spatialsig plan` said before it", "make bench-capacity", "capacity", (
        *(Row(f"cohort {k + 1} that the costs have not seen, took {what}", ("planned", k, key), goal, AT_MOST, unit)
          for k in range(3) for what, key, goal, unit in (
              ("the longer beside the shorter", "factor", 1.5, " x"), ("seconds", "took_s", None, ""), ("seconds, planned", "planned_s", None, ""))),
    )),
    Table("A million cells to patches", "make bench-aggregate", "aggregate", (
        Row("mean of 32 numbers, beside the prototype", ("ratios", "mean"), 4.5, unit=" x"),
        Row("median of six scores, beside the prototype", ("ratios", "median"), 7.5, unit=" x"),
        Row("per cell, beside `spatialdata.aggregate`", ("ratios", "spatialdata"), 500, unit=" x"),
    )),
    Table("Variable genes", "make bench-hvg", "hvg", (
        Row("4 x 200,000 cells x 500 genes, beside scanpy", ("4 x 200k x 500", "x scanpy"), 7.5, unit=" x"),
        Row("the same beside the prototype", ("4 x 200k x 500", "x prototype"), 7.5, unit=" x"),
        Row("100,000 cells x 5,000 genes, beside scanpy", ("100k x 5000", "x scanpy"), 7.5, unit=" x"),
        Row("the same beside the prototype", ("100k x 5000", "x prototype"), 7.5, unit=" x"),
    )),
    Table("Scores of a million cells, 377 genes, six signatures", "make bench-score", "score", (
        Row("beside the prototype", ("x prototype",), 5.5, unit=" x"),
        Row("beside scanpy's `score_genes`", ("x score_genes",), 9, unit=" x"),
        Row("our `score_genes` beside scanpy's", ("x score_genes, same method",), unit=" x"),
        Row("per cell, beside decoupler's ulm", ("x ulm per cell",), 20, unit=" x"),
        Row("memory beyond the scores", ("extra MB beyond the scores, at most",), 50, AT_MOST, " MB"),
    )),
    Table("Autoencoder of 500-1024-256-32", "make bench-autoencoder", "autoencoder", (
        Row("training, beside the prototype's loop", ("ours / prototype",), 2, unit=" x"),
        Row("training, of the matrix products alone", ("ours / products",), 0.65, unit=" x"),
        Row("cells per second in training", ("cells_per_s", "ours")),
        Row("cells per second of SCVI at a like size", ("scvi, cells per s",)),
        Row("cells per second of the batches alone", ("loader, cells per s",), 800_000),
        Row("peak of an epoch over 20 x 500,000 cells", ("large", "peak_gib"), 3, AT_MOST, " GiB"),
    )),
    Table("What the embedding is worth, beside a PCA of equal width", "make bench-biology", "biology", embedding()),
    Table("How much of the answer an embedding holds, alone", "make bench-leak", "leak", (
        Row("autoencoder of the same genes, share of the ceiling", ("same genes", "share_of_ceiling")),
        Row("of the same genes of other cells, share of what two halves of the cells share",
            ("disjoint cells", "share_of_agreement"), ("same genes", "share_of_ceiling"), AT_MOST),
        Row("of other genes (the default), share of the ceiling", ("other genes", "share_of_ceiling"),
            ("disjoint cells", "share_of_agreement"), AT_MOST),
    )),
    Table("Single cells of a held-out patient, synthetic tissue", "make bench-cells", "cells", cells()),
    Table("Maps of attribution on a held-out patient, synthetic tissue", "make bench-faithful", "faithful", (
        Row("signatures that fall more without what their map names than by chance, of 6", ("n_faithful",), 6, digits=0),
        Row("attribution per area of nuclei of the planted type, beside all else, least of 6", ("least_times_per_area",), 3, unit=" x"),
        Row("the same of maps from blank glass (`baseline=\"glass\"`)", ("least_from_glass",), unit=" x"),
    )),
    Table("One page that zooms into a slide of 40,000 x 30,000 px", "make bench-atlas", "atlas", (
        Row("size, MB", ("mb",), 30, AT_MOST),
        Row("CPU time, s", ("cpu_s",), digits=0),
        Row("memory beyond what the process held, MiB", ("extra_mib",), digits=0),
    )),
    Table("The noise ceiling, against a perfect predictor", "make bench-ceiling", "ceiling", depths()),
    Table("Orders that must hold", "make bench-signs", "signs", orders()),
    Table("Traps and false alarms", "make bench-traps", "traps", (
        Row("traps named, of 15", ("caught",), 15),
        Row("false alarms in ten clean cohorts", ("false_alarms",), 0, AT_MOST),
    )),
    Table("Outside models told apart by the referee", "make bench-referee", "referee", (
        Row("cohorts with a leaked, a wrong-unit, a shuffled and an honest model all named, of 20", ("told_apart",), 20),
        *(Row(f"{name} models named, of 20", ("right", name), 20)
          for name in ("honest", "leaked", "wrong unit", "shuffled rows")),
        *(Row(f"leaks seen where {share:.0%} of the prediction are the labels", ("leak_seen_by_share_of_labels", str(share)))
          for share in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)),
    )),
    Table("Learning curves over 2 to 6 slides, and r of 12", "make bench-power", "power", (
        Row("cohorts whose mean r of 12 slides lies in its 95 % interval, of 10", ("held",), 9),
        Row("single signatures in theirs", ("share_of_signatures_held",)),
        Row("median width of the interval of the mean", ("median_width",)),
    )),
    Table("The ladder: H&E to scores, as a share of the noise ceiling", "make bench-ladder", "ladder", ladder()),
    Table("The same at 1 µm per pixel (one seed with 6 slides)", "make bench-ladder-1um", "ladder_1um", (
        Row("H&E alone, 6 slides", ("curve", "mean", "6", "share"), 0.95),
        Row("H&E alone, 2 slides", ("curve", "mean", "2", "share"), 0.92),
        Row("training on 6 slides, CPU time", ("curve", "mean", "6", "cpu_minutes"), 60, AT_MOST, " min"),
    )),
    Table("Pre-training on the H&E of 12 slides, r on four others", "make bench-pretraining", "pretraining", tuple(
        Row(f"{n} labelled slides, {way}", ("mean", n, way)) for n in ("2", "4", "8")
        for way in ("labels alone", "pre-trained")
    )),
    Table("The prototype's network, images per second", "make bench-vit-speed", "vit_speed", (
        Row("training, beside the prototype's code", ("ratio_to_prototype", "train, float32"), 2, unit=" x"),
        Row("inference, beside the prototype's code", ("ratio_to_prototype", "infer, float32"), 2.5, unit=" x"),
        Row("the same, both in passes of 4 images", ("ratio_to_prototype", "infer in passes, float32"), unit=" x"),
        Row("training in bf16, beside the prototype's code", ("ratio_to_prototype", "train, bf16"), 2.5, unit=" x"),
        Row("inference in bf16, beside the prototype's code", ("ratio_to_prototype", "infer, bf16"), unit=" x"),
        Row("final loss in bf16", ("final_loss", "ours, bf16"), ("final_loss", "prototype"), AT_MOST, digits=2),
        *(Row(f"{what}, {name}", ("images_per_s", name, key), unit="/s")
          for key, what in (("train", "training"), ("infer", "inference"))
          for name in ("prototype", "vit-pytorch", "ours, float32", "ours, bf16", "matmul, float32", "matmul, bf16")),
    )),
    Table("Predicting a whole slide with the prototype's network", "make bench-whole-slide", "whole_slide", (
        Row("beside its own code fed by spatialdata's loader from its default store", ("ratios", "default", "found"), 9, unit=" x"),
        Row("the same on chunks of 512 px", ("ratios", "512", "found"), 4, unit=" x"),
        Row("share of the time that goes into reading", ("ratios", "share_of_reading", "found"), 0.12, AT_MOST),
        Row("share of an epoch of the prototype's training not spent waiting for patches", ("ratios", "busy", "found"),
            0.95),
    )),
    Table("Predicting 40,000 x 30,000 px straight from the file of the slide", "make bench-predict-files", "predict_files", (
        Row("of the speed of the network alone", ("ratios", "share_of_forward", "found"), 0.92),
        Row("share of the time that goes into reading", ("ratios", "share_of_reading", "found"), 0.1, AT_MOST),
        Row("peak", ("ratios", "peak_gib", "found"), 2, AT_MOST, " GiB"),
        Row("the prototype's network, beside its own code fed by ImageTilesDataset of spatialdata 0.7.3",
            ("ratios", "ImageTilesDataset / ours", "found"), 9, unit=" x"),
    )),
    Table("95 % intervals on held-out slides", "make bench-conformal", "conformal", (
        Row("share of labels inside", ("held",), 0.93),
        Row("the same", ("held",), 0.97, AT_MOST),
    )),
    Table("When not to trust a model: six synthetic patients, new ones, and slides of other kinds", "make bench-trust", "trust", trust()),
    Table("Trainings that are killed", "make soak-training", "soak_training", (
        Row("equal in every bit after kill -9, of 50", ("killed", "equal"), 50),
        Row("kills in them", ("killed", "kills")),
        Row("stopped by SIGTERM with a checkpoint at most one step old, of 20", ("sigterm", "good"), 20),
    )),
    Table("`spatialsig run` killed by SIGKILL ten times, twice over", "make bench-run-kills", "run_kills", (
        Row("kills", ("n_kills",)),
        Row("runs that ended, of 2", ("n_ended",), 2),
        Row("tables, shapes, weights and csv files unequal to those of a run left alone", ("n_different",), 0, AT_MOST, digits=0),
        *(Row(f"what a kill cost beyond a start of Python, s, run {k + 1}", ("rounds", k, "seconds_per_kill"), digits=1) for k in range(2)),
    )),
    Table("Intervals and p-values", "make bench-intervals", "intervals", intervals()),
    Table("The report of eight held-out slides", "make bench-report", "report_size", (
        Row("size, six signatures", ("mb",), 20, AT_MOST, " MB"),
        Row("time to write", ("seconds",), unit=" s"),
    )),
    Table("The prototype's numbers from its exported files", "make bench-seed-parity", "seed_parity", (
        Row("largest difference", ("largest difference",), 1e-5, AT_MOST),
    )),
)  # fmt: skip


def value(record: Any, path: tuple[str | int, ...]) -> float | None:
    for key in path:
        if record is None or (isinstance(record, dict) and key not in record):
            return None
        record = record[key]
    return record


def shown(number: float, digits: int) -> str:
    rounded = float(f"{number:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def line(row: Row, record: Any) -> str:
    found = value(record, row.path)
    goal = value(record, row.goal) if isinstance(row.goal, tuple) else row.goal
    if found is None:
        return f"| {row.what} | not measured | {wanted(row, goal)} |"
    told = shown(found, row.digits) + row.unit
    missed = goal is not None and not reached(found, goal, row.sense)
    return f"| {row.what} | {f'**{told}**' if missed else told} | {wanted(row, goal)} |"


def reached(found: float, goal: float, sense: str) -> bool:
    if sense == AT_LEAST:
        return found >= goal
    return (abs(found) if sense == WITHIN else found) <= goal


def wanted(row: Row, goal: float | None) -> str:
    return "" if goal is None else f"{row.sense} {shown(goal, 4)}{row.unit}"


def page() -> str:
    parts = [HEAD]
    for table in TABLES:
        file = HERE / "results" / f"{table.file}.json"
        if not file.exists():
            continue
        record = json.loads(file.read_text())
        lines = [line(row, record) for row in table.rows]
        command = f"`{table.command}`" + (f", on {record['machine']}" if "(" in record.get("machine", "") else "")
        parts.append("\n".join([f"## {table.title}", "", command, "", "| | found | wanted |",
                                "|---|---|---|", *lines, ""]))  # fmt: skip
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    made = page()
    if parser.parse_args().check:
        sys.exit(int(not PAGE.exists() or PAGE.read_text() != made))
    PAGE.write_text(made)


if __name__ == "__main__":
    main()
