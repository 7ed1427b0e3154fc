# Every target sets up .venv from requirements.txt first; it is made again when the pins change.
PYTHON ?= python3
CORES ?= all
QUICK = --configfile config.quick.yaml
SNAKEMAKE = .venv/bin/snakemake --cores $(CORES)

.PHONY: quick reproduce report test

quick: .venv/.ready
	$(SNAKEMAKE) $(QUICK)
	.venv/bin/snakemake $(QUICK) --report results/quick/report.html

reproduce: .venv/.ready
	$(SNAKEMAKE)

report: .venv/.ready
	.venv/bin/snakemake --report results/report.html

test: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile workflow
	.venv/bin/snakemake --lint
	.venv/bin/python -m pytest

.venv/.ready: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	touch $@
