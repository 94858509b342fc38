# make demo: a trained VAE, pictures and numbers, from nothing.   make test: everything that CI runs.
# The newest Python that fits and can make a virtual environment; each is tried, for a name in PATH may not run.
FITS := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
DEMO := runs/demo
STAMP := .venv/.installed
VENDOR := src/vaes/explore/page/vendor

.PHONY: demo test lint install page docs

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 with venv is in PATH; give one: make PYTHON=/path/to/python3" >&2; false; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(DEMO)/metrics.json
	-@$(MAKE) --no-print-directory page
	$(BIN)/vaes sample $(DEMO) --mode sample --n_samples 64
	$(BIN)/vaes sample $(DEMO) --mode reconstruct --n_samples 32
	$(BIN)/vaes sample $(DEMO) --mode visualize_latent
	$(BIN)/vaes sample $(DEMO) --mode traverse
	$(BIN)/vaes report $(DEMO) $$(test -f $(VENDOR)/.fetched || echo --static)
	@echo
	@cat $(DEMO)/metrics.txt
	@echo
	@echo "open:     $(DEMO)/report.html, in a browser: the decoder runs in it"
	@echo "pictures: $(DEMO)/pictures/*-sheet.png"
	@echo "weights:  $(DEMO)/ckpt/*/model.safetensors"
	@echo "curves:   $(BIN)/tensorboard --logdir $(DEMO)"
	@echo "next:     $(BIN)/vaes explore $(DEMO)"
	@echo "          $(BIN)/vaes evaluate $(DEMO)"
	@echo "          $(BIN)/vaes sample $(DEMO) --mode interpolate --between test"
	@echo "          $(BIN)/vaes train -c vae-numerals -e runs/beta --objective.beta 4"
	@echo "          $(BIN)/vaes train --data.kind folder --data.root YOUR/PICTURES --data.image_size 64"

# A demo that was cut off goes on; a finished one is kept.
$(DEMO)/metrics.json: | $(STAMP)
	if test -f $(DEMO)/config.yaml; then $(BIN)/vaes train -e $(DEMO) --resume latest; \
	else $(BIN)/vaes train -c vae-numerals -e $(DEMO); fi

# What the page takes of others: fetched by the lock file, kept out of the repository, packed into the wheel.
page: $(VENDOR)/.fetched

$(VENDOR)/.fetched: web/package-lock.json | $(STAMP)
	cd web && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	mkdir -p $(VENDOR)
	cp web/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs $(VENDOR)
	cp web/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm $(VENDOR)
	cp web/node_modules/axe-core/axe.min.js web
	rm -rf web/node_modules
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	-@$(MAKE) --no-print-directory page
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The documentation as a site, read from the disk or put on any server: build/site/index.html.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open: build/site/index.html"

.venv/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@
