.PHONY: setup native quickstart test bench check format clean

setup:
	@bash tools/setup.sh

quickstart: setup data/digits/meta.json
	@.venv/bin/python -m fastssd.train configs/quickstart.yaml

data/digits/meta.json: | setup
	@.venv/bin/python tools/convert_dataset.py digits data/digits --imbalance 16 --max-per-class 128

# A file's tests share what they prepare, so they stay in one process.
test: setup
	@.venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# On a machine that does nothing else; DATA=FOLDER for photographs of your own.
bench: setup
	@.venv/bin/python benchmarks/run_all.py $(if $(DATA),--data "$(DATA)")

# After a change of a C file: `setup` does the same, with everything else.
native:
	@.venv/bin/python setup.py --quiet build_ext --inplace

check: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: setup
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

# What these targets made, and nothing else: other runs and datasets are yours.
clean:
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf runs/quickstart data/digits
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
