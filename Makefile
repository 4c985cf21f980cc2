# Everything starts from nothing but Python: the first target makes .venv and installs into it.
PYTHON ?= python3
BIN := .venv/bin
SUDO := $(shell [ $$(id -u) = 0 ] || echo sudo)

.PHONY: demo test test-long chromium gpu proof clean

demo: .venv/installed  ## the whole pipeline on the built-in sample, with no network and no GPU: minutes
	$(BIN)/python prep.py --sample
	$(BIN)/python main.py --weights detr/sample/detr-small.pth --resume auto --batch_size 4 --lr 3e-4 --lr_backbone 1e-4 --clip_max_norm 1 --eos_coef 0.5 \
		--query_groups 3 --color_jitter 0.2 --copy_paste 0.5 --masks --scales 224 256 288 --max_size 432 --epochs 9 --eval_every 3
	$(BIN)/python results.py --splash

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
test: .venv/tests  ## lint and quick tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) -n auto --maxprocesses 4

test-long: .venv/tests  ## tests that run whole scripts; CI runs them after the quick ones
	$(PYTEST) -m "long and not slow" -n auto --maxprocesses 4

chromium: .venv/installed  ## Debian's browser and npm's onnxruntime-web, with which the tests open pages; without they skip that
	command -v chromium || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends chromium; }
	$(BIN)/python -c "from detr.export.web_page import fetch_runtime; fetch_runtime()"

GPU_PYTHON ?= $(BIN)/python
gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),.venv/tests)  ## checks on the GPU of this machine, sized for 6 minutes; GPU_PYTHON=python3 installs nothing
	$(GPU_PYTHON) -m tests.gpu_check

proof: .venv/tests  ## the slow proofs, minutes each; what they measured is printed at the end
	$(BIN)/python -m pytest -m slow -rP

.venv/installed: requirements.txt tests/constraints.txt
	$(PYTHON) -m venv .venv || { $(PYTHON) -m pip install --quiet virtualenv && $(PYTHON) -m virtualenv --clear .venv; }
	$(BIN)/pip install --quiet -r requirements.txt -c tests/constraints.txt
	touch $@

.venv/tests: .venv/installed tests/requirements.txt
	$(BIN)/pip install --quiet -r tests/requirements.txt -c tests/constraints.txt
	touch $@

clean:
	rm -rf .venv
