# Two commands on a fresh machine: `make search` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: search test check format soak clean

search: .venv/ready  ## set up, run the quickstart search, show its top five and its report
	$(BIN)/nas-cluster run configs/quickstart.yaml
	$(BIN)/nas-cluster top runs/quickstart -k 5
	$(BIN)/nas-cluster report runs/quickstart

test: check  ## everything CI runs; what is on Ray measures seconds, so nothing runs beside it
	$(BIN)/pytest tests -n auto --dist worksteal --timeout 900 -m "slow and not ray and not soak"
	$(BIN)/pytest tests -m "ray and not soak"

check: .venv/ready  ## format, lint, types, layers, unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests -n auto --dist worksteal -m "not soak and not ray and not slow"

soak: .venv/ready  ## the long tests
	$(BIN)/pytest tests -m soak

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs dist
