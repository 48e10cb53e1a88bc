# The project's commands in one place (https://just.systems). `just` alone lists them. Every recipe is one plain command,
# so that whoever has no `just` can read it here and type it.

bin := ".venv/bin"

# What there is to do.
default:
    @just --list

# An environment of its own with everything that the tests and the linters need.
setup:
    python3 -m venv .venv && {{bin}}/pip install -q -c constraints.txt -e ".[dev]"

# The README's test command.
test:
    {{bin}}/pytest -n 2 -m "not slow"

# What only CI runs otherwise.
test-slow:
    {{bin}}/pytest -n 2 -m slow

# The tests whose name, or whose file's, holds NAME: `just test-one lmam`.
test-one NAME:
    {{bin}}/pytest -q -k "{{NAME}}"

# The conformance suite on one installed plugin.
check NAME:
    {{bin}}/fusionzoo check {{NAME}}

# Lint, format, types, import contracts, declared dependencies.
lint:
    {{bin}}/ruff check . && {{bin}}/ruff format --check . && {{bin}}/pyright && {{bin}}/lint-imports --no-cache && {{bin}}/deptry .

# Mend what ruff can mend by itself.
format:
    {{bin}}/ruff check --fix . && {{bin}}/ruff format .

# Measure every fusion's cost anew (minutes, on a quiet machine) and write the gallery's table of it.
cost:
    {{bin}}/python benchmarks/fusions.py --json docs/fusions/cost.json

# Write the gallery of fusions and the pages generated from docstrings.
gallery:
    {{bin}}/python docs/gallery.py

# Everything that CI does, in an environment of its own.
ci:
    bash .ci/run

# The tests with the oldest and the newest versions that pyproject.toml allows (gigabytes; by hand).
versions *WHICH:
    .ci/versions {{WHICH}}
