# Two commands for a newcomer: `make demo` and `make test`. Each makes .venv and installs what it needs.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
VERSION := $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
# versions that were tested together, where there is a list of them for this Python
CONSTRAINTS := $(addprefix -c ,$(wildcard constraints-$(VERSION).txt))
# bytecode is made where it is used, which is a small part of what is installed; without it each process compiles for half a minute
unexport PYTHONDONTWRITEBYTECODE
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --no-compile
# uv needs a tenth of the time of pip, which takes its place where uv cannot reach a package (an index only pip knows of)
INSTALL = $(PIP) uv && $(PY) -m uv pip install --quiet --python $(PY) $(CONSTRAINTS) $(1) || $(PIP) $(CONSTRAINTS) $(1)
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
OUT ?= demo
comma := ,

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow coverage screen lint heads notebooks docs bench-demo bench-her2st bench-hest bench-qc-alignment bench-import bench-import-counts bench-render bench-fuzz-bundle bench-fuzz-arguments bench-patch-reads bench-patch-scaling bench-loader bench-shuffle bench-aggregate bench-score bench-hvg bench-real-slides bench-autoencoder bench-biology bench-pretraining bench-leak bench-seed-parity soak-store soak-training bench-bitflips bench-layout bench-conformal bench-whole-slide bench-predict-files bench-traps bench-intervals bench-ceiling bench-vit-speed bench-ladder bench-ladder-1um bench-signs bench-report bench-referee bench-walks bench-lineage bench-memory bench-busy bench-run-kills bench-cluster bench-answers bench-capacity bench-damaged-models bench-cells bench-trust bench-power bench-atlas bench-faithful clean

help:  ## show the commands
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.torch: pyproject.toml $(wildcard constraints-*.txt)
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(CONSTRAINTS) torch==2.13.0
	@touch $@

$(VENV)/.package: $(VENV)/.torch
	$(call INSTALL,-e .)
	@touch $@

$(VENV)/.test: $(VENV)/.torch
	$(call INSTALL,-e '.[docs$(comma)test]')
	@touch $(VENV)/.package $@

demo: $(VENV)/.package  ## synthetic cohort -> trained model -> demo/report.html
	$(VENV)/bin/spatialsig demo --out $(OUT)

screen:  ## a virtual screen for the tests that open a napari window (Debian, as root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq xvfb xauth libgl1-mesa-dri libegl1 libxkbcommon-x11-0 \
	  libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 \
	  libxcb-xinerama0 libdbus-1-3

lint: $(VENV)/.test  ## style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

heads:  ## bring up to date what the head of each module says about its users
	$(PY) -m tests.heads

notebooks: $(VENV)/.test  ## run the notebooks
	$(PY) -m pytest -o addopts= --nbmake notebooks --nbmake-timeout 600 --timeout 900

test: $(VENV)/.test  ## style, types, tests, notebooks, documentation
	$(MAKE) -j2 lint notebooks docs  # each uses one core, the tests use two
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.test  ## the long forms of tests that `make test` runs small
	ZARR_WITH_THREADS=1 $(PYTEST) -m slow

coverage: $(VENV)/.test  ## share of lines and branches that the tests run, page by page in build/coverage
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html:build/coverage

docs: $(VENV)/.test  ## HTML documentation in docs/_build/html; warnings are errors
	rm -rf docs/generated  # pages of names that are gone would be warned of
	$(PY) benchmarks/summary.py
	$(PY) -m sphinx -W --keep-going -b html docs docs/_build/html

bench-demo: $(VENV)/.package  ## the demo's labels and embedding against the known truth
	$(PY) benchmarks/demo_checks.py --demo $(OUT)

bench-her2st: $(VENV)/.package  ## leave-one-patient-out on real breast tissue
	$(PY) benchmarks/her2st.py
	$(PY) benchmarks/her2st.py --normalize-stain --json benchmarks/results/her2st_one_stain.json

bench-hest: $(VENV)/.package  ## HEST-Bench by its own protocol and a tuned one: DATA=folder ENCODER=name
	$(PY) benchmarks/hest_bench.py $(DATA) --encoder $(ENCODER)

bench-import: $(VENV)/.package  ## time and memory of importing an H&E, beside spatialdata-io
	$(PY) benchmarks/import_he.py

bench-import-counts: $(VENV)/.package  ## memory and time of importing counts, both layouts of Atera
	$(PY) benchmarks/import_counts.py

bench-qc-alignment: $(VENV)/.package  ## shifts and mistakes planted in alignments: measured and named
	$(PY) benchmarks/qc_alignment.py

bench-render: $(VENV)/.package  ## time of painting and writing a synthetic slide
	$(PY) benchmarks/render.py

bench-fuzz-bundle: $(VENV)/.package  ## 10,000 changed bytes of bundles: no crash, nothing silent
	$(PY) benchmarks/fuzz_bundle.py

bench-real-slides: $(VENV)/.package  ## real slides through the readers, with figures
	$(PY) benchmarks/real_slides.py

bench-fuzz-arguments: $(VENV)/.package  ## 5,000 calls with one wrong argument: each ends in our error that names it, or works
	$(PY) benchmarks/fuzz_arguments.py --json benchmarks/results/fuzz_arguments.json

bench-patch-reads: $(VENV)/.test  ## CPU time of random patches, beside the readers people use today
	$(PY) benchmarks/patch_reads.py

bench-loader: $(VENV)/.test  ## epochs over four slides: speed, memory, worker processes
	$(PY) benchmarks/loader.py

bench-shuffle: $(VENV)/.package  ## shuffling by blocks against the full shuffle
	$(PY) benchmarks/shuffle.py

bench-aggregate: $(VENV)/.package  ## cells to patches, beside pandas and spatialdata
	$(PY) benchmarks/aggregate.py

bench-score: $(VENV)/.test  ## scoring cells, beside scanpy and decoupler
	$(PIP) $(CONSTRAINTS) decoupler
	$(PY) benchmarks/score.py

bench-hvg: $(VENV)/.test  ## variable genes, beside scanpy
	$(PY) benchmarks/hvg.py

bench-pretraining: $(VENV)/.package  ## what pre-training on unlabelled H&E buys with few labelled slides
	$(PY) benchmarks/pretraining.py

soak-store: $(VENV)/.package  ## 1,000 killed writers, a crash and a full disk at every call, readers meanwhile
	$(PY) benchmarks/soak_store.py --n 1000

soak-training: $(VENV)/.package  ## 50 trainings killed at random moments, 20 told to stop, all compared with whole ones
	$(PY) benchmarks/soak_training.py --n 50

bench-bitflips: $(VENV)/.package  ## 10,000 flipped bits, all to be found
	$(PY) benchmarks/bitflips.py --n 10000

bench-damaged-models: $(VENV)/.package  ## 10,000 altered model directories: refused or harmless, nothing executed
	$(PY) benchmarks/damaged_models.py

bench-layout: $(VENV)/.package  ## time and size of writing an H&E, against sdata.write
	$(PY) benchmarks/layout.py

bench-autoencoder: $(VENV)/.package  ## cells per second through the autoencoder; a cohort larger than memory
	$(PY) benchmarks/autoencoder.py --large

bench-biology: $(VENV)/.package  ## what the embedding is worth, beside PCA and (where installed) scVI
	$(PY) benchmarks/biology.py

bench-traps: $(VENV)/.package  ## every known way to fool oneself, switched on and named; clean cohorts left alone
	$(PY) benchmarks/traps.py

bench-referee: $(VENV)/.package  ## outside models that leaked, have another unit or shuffled rows, told from honest ones
	$(PY) benchmarks/referee.py

bench-power: $(VENV)/.package  ## r of twelve slides told from a learning curve over two to six
	$(PY) benchmarks/power.py

bench-intervals: $(VENV)/.package  ## intervals that hold the truth as often as they say; p-values uniform under the null
	$(PY) benchmarks/intervals.py

bench-ceiling: $(VENV)/.package  ## the noise ceiling against a perfect predictor, while counts get fewer
	$(PY) benchmarks/ceiling.py

bench-leak: $(VENV)/.package  ## how much of the answer an expression embedding holds
	$(PY) benchmarks/leak.py

bench-seed-parity: $(VENV)/.package  ## the prototype's files, computed again by a prototype written anew
	$(PY) benchmarks/seed_parity.py

bench-vit-speed: $(VENV)/.package  ## images per second through the prototype's network, beside its own code
	$(PIP) --no-deps vit-pytorch
	$(PY) benchmarks/vit_speed.py

bench-conformal: $(VENV)/.package  ## how often intervals hold on held-out synthetic slides
	$(PY) benchmarks/conformal.py

bench-trust: $(VENV)/.package  ## slides of another kind known, those of the same kind left alone, and the error rate of triage
	$(PY) benchmarks/trust.py

bench-whole-slide: $(VENV)/.package  ## predicting a whole slide and training on it, beside the prototype fed by ImageTilesDataset
	$(PY) benchmarks/whole_slide.py

bench-predict-files: $(VENV)/.test  ## a slide of 40,000 x 30,000 px from its file: memory, reading, speed beside the network alone and the prototype
	$(PY) benchmarks/predict_files.py

bench-ladder: $(VENV)/.package  ## what share of the predictable is predicted, by slides, stain, input (hours; resumes)
	$(PY) benchmarks/ladder.py

bench-ladder-1um: $(VENV)/.package  ## the same at 1 um per pixel, without the other parts
	$(PY) benchmarks/ladder.py --um-per-px 1 --parts curve --out benchmarks/out/ladder_1um --json benchmarks/results/ladder_1um.json

bench-cells: $(VENV)/.test  ## single cells of a held-out patient: r, ceiling, gain over the patch; 300,000 of them in napari (`make screen`)
	$(PY) benchmarks/cells.py

bench-report: $(VENV)/.package  ## size of the report of eight held-out slides
	$(PY) benchmarks/report_size.py

bench-walks: $(VENV)/.test  ## how a value walks through the package; size, circles, longest folder
	$(PY) benchmarks/walks.py --json benchmarks/results/walks.json

bench-answers: $(VENV)/.package  ## what is answered to the files and habits that broke other tools, case by case
	$(PY) benchmarks/answers.py

bench-busy: $(VENV)/.package  ## training beside a process that keeps a core busy
	$(PY) benchmarks/busy.py

bench-run-kills: $(VENV)/.package  ## `spatialsig run` killed ten times, twice over, beside a run left alone
	$(PY) benchmarks/run_kills.py

bench-cluster: $(VENV)/.test  ## cohorts on two workers of dask against one slide after another, with workers killed
	$(PY) benchmarks/cluster.py

bench-memory: $(VENV)/.package  ## memory and time of every function, 10,000 to a million cells (Linux)
	$(PY) benchmarks/memory.py

bench-capacity: $(VENV)/.package  ## what each step of a run costs, and three runs beside what was planned (Linux)
	$(PY) benchmarks/capacity.py

bench-patch-scaling: $(VENV)/.package  ## time of a patch and memory on images of 2,000 to 60,000 px (Linux)
	$(PY) benchmarks/patch_scaling.py

bench-faithful: $(VENV)/.package  ## what maps of attribution name is what the score needs, and the planted cause
	$(PY) benchmarks/faithful.py --out build/cells

bench-atlas: $(VENV)/.package  ## size and time of the page that zooms into a slide of 40,000 x 30,000 px (Linux)
	$(PY) benchmarks/atlas.py

bench-lineage: $(VENV)/.package  ## what it costs that results record what they were made from
	$(PY) benchmarks/lineage.py

bench-smoke: $(VENV)/.test  ## every benchmark once in its short form: which of them still run
	$(PY) benchmarks/smoke.py

bench-signs: $(VENV)/.package  ## the orders that must hold: splits, statistics, misplaced images
	$(PY) benchmarks/signs.py

clean:  ## remove what the commands above made
	rm -rf $(VENV) $(OUT) docs/_build docs/generated build/coverage .coverage
