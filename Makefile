# SPDX-License-Identifier: Apache-2.0
# Two targets do all the set-up on a machine that has Python 3.11 or later:
#   make demo   renders the demo shot with the embedded model
#   make test   runs ruff, mypy and pytest
# Another build of torch (on Linux the usual one has NVIDIA's libraries, gigabytes): PIP_EXTRA_INDEX_URL=... make demo,
# with an index of PyTorch's; another release of it: make demo TORCH="torch>=2.9,<3"

PYTHON ?= python3
# Pinned, so that everybody's first run is the one that was tested.
TORCH ?= torch==2.13.0
# Processes that run the tests, each with up to 3 GiB of memory.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
DEMO_FRAMES := out/demo

.PHONY: demo test clean

demo: $(VENV)/.ready
	$(BIN)/fresco render demo/shot.json
	@echo "Look at $(DEMO_FRAMES)/harbour.mp4. A page with the plate beside it: $(BIN)/fresco report demo/shot.json"

test: $(VENV)/.ready-test $(VENV)/.ready-blender
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

clean:
	rm -rf $(VENV) .bpy out

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Fresco needs Python 3.11 or later; try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first: a requirement resolved later finds it installed and does not fetch another build.
$(VENV)/.ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

# Two Blenders as Python modules, below .bpy: the oldest that the add-on supports and the newest that runs here.
$(VENV)/.ready-blender: tests/blender/install.py | $(VENV)/.ready-test
	$(BIN)/python tests/blender/install.py
	touch $@
