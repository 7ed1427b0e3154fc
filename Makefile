# Every target sets up .venv from requirements.txt first; it is made again when the pins change.
PYTHON ?= python3
CORES ?= all
QUICK = --configfile config.quick.yaml
BENCHMARKS = planes products spectra traces sharpness ladder training alignment curves scaling portable planning costs architectures memory report
SNAKEMAKE = .venv/bin/snakemake --cores $(CORES)

.PHONY: quick new estimate reproduce verify publish report examples test test-slurm torture bench

quick: .venv/.ready
	$(SNAKEMAKE) $(QUICK)
	.venv/bin/snakemake $(QUICK) --report results/quick/report.html

# a study of one model of yours: make new NAME=mine writes mine.yaml, mine.py and mine.claims.yaml
new: .venv/.ready
	.venv/bin/python scripts/new.py "$(NAME)"

# of another config: make estimate CONFIG="--configfile mine.yaml"
estimate: .venv/.ready
	$(SNAKEMAKE) --quiet all $(CONFIG) -- estimate

reproduce: .venv/.ready
	$(SNAKEMAKE)

# what is whole, stale, foreign, damaged or nobody's: make verify CONFIG="--configfile mine.yaml"; with
# FIX=--fix what is wrong is moved aside
verify: .venv/.ready
	.venv/bin/python scripts/verify.py $(FIX) $(CONFIG)

# docs/study and the README's answers, from the results of the full study
publish: .venv/.ready
	$(SNAKEMAKE) publish
	.venv/bin/python docs/publish.py results/study

report: .venv/.ready
	.venv/bin/snakemake --report results/report.html

# docs/examples and docs/api.md, and what the README's three lines print
examples: .venv/.ready
	.venv/bin/python docs/api.py
	PYTHONPATH=scripts .venv/bin/python docs/gallery.py

test: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/snakefmt --check Snakefile workflow
	.venv/bin/snakemake --lint
	.venv/bin/python -m pytest -n 3 --dist worksteal

# On a Slurm of two nodes that it starts here, and ends: with its log. Needs root; says so where not.
test-slurm: .venv/.ready
	TEST_SLURM=1 .venv/bin/python -m pytest -s -rs tests/workflow/test_slurm.py

# Twenty kills of a study, at random, and what comes of it: ten minutes.
torture: .venv/.ready
	.venv/bin/python tests/torture.py

# Side by side with other packages, on one thread: leave the machine alone meanwhile.
bench: .venv/.ready .venv-bench/.ready
	$(SNAKEMAKE) data
	set -e; for script in $(BENCHMARKS); do \
		PYTHONPATH=scripts .venv-bench/bin/python benchmarks/$$script.py; done

.venv-bench/.ready: benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --requirement benchmarks/requirements.txt
	touch $@

.venv/.ready: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	touch $@
