# Every target sets up what it needs; a second run starts at once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
# Of tests and training: `make TORCH=torch==2.13.0 test` takes the default build, on Linux the one for NVIDIA GPUs.
TORCH  ?= cpu

.PHONY: ask test check check-slow check-versions coverage lint bench docs mini clean

ask: $(VENV)/.run
	@test -n "$$AUDIO" || { echo 'usage: make ask AUDIO=file QUESTION="..."' >&2; exit 2; }
	@$(BIN)/mu-llama ask -q "$$QUESTION" -- "$$AUDIO"

export AUDIO QUESTION

# Two workers with one thread each, a test file to a worker: OpenMP's threads spin while they wait for each other, so
# that two workers with several threads each, or one beside another busy process, take many times as long.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
WORKERS ?= 2

test: $(VENV)/.dev
	$(PYTEST) -n $(WORKERS) --dist loadfile

# Which lines and branches of the package the tests run; htmlcov/index.html shows them.
coverage: $(VENV)/.dev
	$(PYTEST) -n $(WORKERS) --dist loadfile --cov --cov-report=term --cov-report=html

check: lint test

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests recipes benchmarks scripts
	$(BIN)/ruff format --check src tests recipes benchmarks scripts
	$(BIN)/mypy src

# One after the other: they measure time and memory, and start servers and browsers.
check-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# The lowest and the newest dependencies that pyproject.toml allows; half an hour and 10 GB, so before a release.
check-versions:
	"$(PYTHON)" scripts/check_versions.py

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.run

# From nothing to a trained and scored mini, five to six hours on two cores; stop and start it as you like.
mini: $(VENV)/.dev
	$(BIN)/python -m recipes.mini.make

# The site in site/: guides, reference, decisions, experiments; broken links and undocumented parameters fail.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) site build dist htmlcov .coverage

$(VENV)/.run: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once, a minute or two) ..." >&2
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs Python 3.11 or newer" >&2; exit 2; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run scripts/install_torch.sh
	@sh scripts/install_torch.sh $(BIN)/python "$(TORCH)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,torch,train,musicqa,ray,facts,demo]'
	@touch $@
