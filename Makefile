# The verbs; all logic is in tools/bootstrap.py, which also works without make. ARGS are passed on:
#   make test ARGS="-k attention"    make demo ARGS="--seed 1"
PYTHON ?= python3

.PHONY: setup demo serve test check lint fix docs bench clean
setup demo serve test check lint fix docs bench clean:
	@$(PYTHON) tools/bootstrap.py $@ $(ARGS)
