# Everything runs in .venv, made from requirements.lock. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Three processes keep two processors busy, as tests also wait for disks and servers. More: make test WORKERS='-n 6'.
WORKERS ?= -n 3 --dist worksteal
# uv's options for all lock files: exact versions and hashes for every supported Python, no addresses.
LOCK := --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --no-header --no-strip-extras --quiet

# Tests and jobs start processes by the hundred, of which each would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

# The demo keeps to its own folder: Prefect's database would go to the home folder otherwise.
demo: export PREFECT_HOME := $(CURDIR)/demo/prefect

.PHONY: demo fields test slow-test browser-test screenshots chaos-test compose-test slurm-test test-lowest lint kernels \
	premerge check coverage bench docs reference gallery lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    cluster a photograph's pixels under Prefect, and write a report"
	@echo "make fields  cluster a climate field: places by their series, and years by their maps"
	@echo "make test    run the tests"
	@echo "make premerge  the checks before a merge: lint, the tests, and a look at the dashboard"
	@echo "make check   everything: lint, the docs and every suite; as root on Debian, it installs what they need"
	@echo "make slow-test  run the tests that need many processes or buckets: schedules, clusters of workers, killed runs"
	@echo "make chaos-test  kill workers and the server, and wait until it is noticed"
	@echo "make compose-test  bring up the stack of docker-compose.yml and try it, with a Docker engine; as root"
	@echo "make browser-test  look at Prefect's UI with Chromium, while a run goes on and when it is done"
	@echo "make screenshots   do so, and renew the pictures of docs/dashboard.md"
	@echo "make slurm-test  run jobs in a SLURM of this machine"
	@echo "make lint    formatting, lint rules, types"
	@echo "make coverage  run the tests, and print how much of the code they run"
	@echo "make bench   every bar of speed beside its target, into benchmarks/results and README.md"
	@echo "make docs    build the pages of docs/ and run the tutorials, into build/docs"
	@echo "make reference  remake docs/options.md and docs/config.schema.json from the declarations of the options"
	@echo "make gallery  redraw the figures of docs/gallery.md: all, or FIGURES='limit.png densities.png'"
	@echo "make lock    remake the lock files"
	@echo "make clean   remove what the other targets made"

# --- setup -----------------------------------------------------------------------------------------------------------

# uv, at the version and hash of the lock file, takes seconds for what takes pip minutes. Where it finds no packages, by
# a mirror that only pip is told of, pip does it.
PIP := -m pip install --quiet --disable-pip-version-check --no-deps
define install
$(PYTHON) -m venv --clear $(1)
sed -n '/^uv==/,/[^\\]$$/p' $(2) | $(1)/bin/python $(PIP) --require-hashes -r /dev/stdin
$(1)/bin/uv pip install --quiet --compile-bytecode --python $(1) --no-deps --require-hashes -r $(2) \
	|| $(1)/bin/python $(PIP) --require-hashes -r $(2)
$(1)/bin/python $(PIP) --no-build-isolation -e .
$(1)/bin/python -m compileall -q clustering flows
endef

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed; {sys.executable} is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12")'
	$(call install,$(VENV),requirements.lock)
	@touch $@

# --- the main job ----------------------------------------------------------------------------------------------------

demo: $(READY)
	rm -rf demo/china.zarr
	$(BIN)/clustering ingest "$$($(BIN)/python -c 'from importlib.resources import files; print(files("sklearn.datasets.images") / "china.jpg")')" demo/china.zarr
	$(BIN)/clustering fit configs/quickstart.yaml --prefect --set output.overwrite=true

# Real fields: the air temperature of a climate model over North America, from the package iris-sample-data.
fields: $(READY)
	rm -rf demo/north-america.zarr
	$(BIN)/clustering ingest "$$($(BIN)/python -c 'import iris_sample_data; print(iris_sample_data.path)')/E1_north_america.nc" demo/north-america.zarr
	$(BIN)/clustering fit configs/climate-zones.yaml --no-prefect --set output.overwrite=true
	$(BIN)/clustering fit configs/temperature-regimes.yaml --no-prefect --set output.overwrite=true

# --- checks ----------------------------------------------------------------------------------------------------------

test: $(READY)
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

# Kernels are compiled while types are checked, which takes a minute on one processor.
premerge: $(READY)
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint kernels
	$(MAKE) --no-print-directory browser-test
	$(MAKE) --no-print-directory test

# Order, and what is tried beside what, are in the script.
check: $(READY)
	.ci/check

# The tracer of Python 3.11 adds two thirds to the time of the tests, so no other target measures.
coverage: $(READY)
	$(BIN)/python -m pytest $(WORKERS) --cov --cov-report=term:skip-covered $(ARGS)

# Processes that begin side by side would each compile the kernels; these are kept beside the sources.
kernels: $(READY)
	$(BIN)/python -m tests.kernels

# What needs many processes or requests: schedules, worker processes of every kind, killed runs, versions in buckets.
# Tests of a file share servers and clusters, so each file is tried in one process.
slow-test: $(READY)
	$(BIN)/python -m pytest -m 'slow and not chaos' $(WORKERS) --dist loadfile $(ARGS)

# What happens when a run is cancelled, the API goes or a machine dies: the server notices after 90 s. One server a file.
chaos-test: $(READY)
	$(BIN)/python -m pytest -m chaos tests/flows -n 2 --dist loadfile $(ARGS)

# Chromium comes from the system: apt-get install chromium.
browser-test: $(READY)
	$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

screenshots: export SCREENSHOTS := docs
screenshots: browser-test

# Jobs of a real SLURM, which the suite starts on this machine: needs Debian's slurm-wlm and munge.
slurm-test: $(READY)
	$(BIN)/python -m pytest tests/slurm -m slurm $(ARGS)

lint: $(READY)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

# The suite with the oldest versions that pyproject.toml allows.
test-lowest:
	$(MAKE) .venv-lowest/.ready
	.venv-lowest/bin/python -m pytest $(WORKERS) $(ARGS)

.venv-lowest/.ready: requirements.lowest.lock pyproject.toml
	$(call install,.venv-lowest,requirements.lowest.lock)
	@touch $@

# The stack of docker-compose.yml, from images that are made for it and removed: needs a Docker engine, debootstrap and root.
compose-test: $(READY)
	$(BIN)/python -m pytest -m compose tests/compose $(ARGS)

# Each part runs in a process of its own, and one that fails does not stop the others. A few of them:
# make bench BENCH='resident startup' ARGS='--rounds 1'
bench: $(READY) .venv-peers/.ready
	$(BIN)/python -m benchmarks $(BENCH) --arguments='$(ARGS)'

# Peers have an environment of their own, because they want other versions of what we use too.
.venv-peers/.ready: requirements.peers.lock $(READY)
	$(PYTHON) -m venv --clear .venv-peers
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv-peers --no-deps --require-hashes -r $< \
		|| .venv-peers/bin/python $(PIP) --require-hashes -r $<
	@touch $@

# --- upkeep ----------------------------------------------------------------------------------------------------------

# The pages have an environment of their own, so that tests need none of it. Tutorials run while they are built.
docs: .venv-docs/.ready
	.venv-docs/bin/sphinx-build --jobs 2 --fail-on-warning --keep-going --quiet docs build/docs
	@echo "build/docs/index.html"

.venv-docs/.ready: requirements.docs.lock pyproject.toml
	$(call install,.venv-docs,requirements.docs.lock)
	@touch $@

# The page of all options, and the schema that editors complete configs by, from their declarations.
reference: $(READY)
	$(BIN)/python -c 'from clustering.report.reference import reference; print(reference(), end="")' > docs/options.md
	$(BIN)/python -c 'from clustering.report.schema import schema_text; print(schema_text(), end="")' > docs/config.schema.json

# The figures of docs/gallery.md, from the configs in configs/lecture.
gallery: $(READY)
	$(BIN)/python -m docs.gallery $(FIGURES)

lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml $(LOCK) --all-extras --upgrade -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml $(LOCK) --all-extras --resolution lowest-direct --upgrade -o requirements.lowest.lock
	$(BIN)/uv pip compile pyproject.toml $(LOCK) --extra stack --constraint requirements.lock --upgrade -o requirements.image.lock
	$(BIN)/uv pip compile benchmarks/peers.in $(LOCK) --upgrade -o requirements.peers.lock
	$(BIN)/uv pip compile pyproject.toml docs/requirements.in $(LOCK) --extra cli --extra distributed --extra ingest \
		--extra plot --extra sklearn --upgrade -o requirements.docs.lock

clean:
	rm -rf $(VENV) .venv-lowest .venv-peers .venv-docs build demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
