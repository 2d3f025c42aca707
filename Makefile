# `make help` lists the targets. Tools of pinned versions come from scripts/tools.

.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh

BUILD_NEEDS := cargo cc c++ make perl
STACK_NEEDS := java mvn python3
TEST_NEEDS := $(BUILD_NEEDS) $(STACK_NEEDS) node npm

# Further options of `sluice dev`, `sluice-bench run`, `sluice-chaos`: make run ARGS=--ephemeral-ports
ARGS ?=
# Not empty: measure other software too
PEERS ?=
# How long `make chaos` goes on, and which faults it chooses: random, and told, where none is given
MINUTES ?= 10
SEED ?=

.PHONY: help run build image test e2e bench chaos lint fmt fmt-check clippy deny up down secrets clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build, then run the whole pipeline on this computer (ARGS="--ephemeral-ports" …)
	@scripts/prerequisites $(BUILD_NEEDS) $(STACK_NEEDS)
	@cargo run --locked --package sluice -- dev $(ARGS)

build: ## Build the binary for production: target/release/sluice
	@scripts/prerequisites $(BUILD_NEEDS)
	@cargo build --release --locked --package sluice

test: ## Run every test, with a real broker and registry
	@scripts/prerequisites $(TEST_NEEDS)
	@scripts/test

e2e: ## Run the end-to-end tests alone
	@scripts/prerequisites $(TEST_NEEDS)
	@cargo test --workspace --locked --no-run
	@scripts/test e2e

# Built one after the other: together, cargo would build the product with what only measurements need.
bench: ## Measure the pipeline on this machine (PEERS=1 beside others, ARGS="--quick" …)
	@scripts/prerequisites $(BUILD_NEEDS) $(STACK_NEEDS)
	@cargo build --release --locked --package sluice
	@cargo build --release --locked --package sluice-bench
	@"$${CARGO_TARGET_DIR:-target}/release/sluice-bench" run $(if $(PEERS),--peers) $(ARGS)

chaos: ## Try to make the pipeline lose or double an event (MINUTES=10 SEED=… ARGS=…)
	@scripts/prerequisites $(BUILD_NEEDS) $(STACK_NEEDS)
	@cargo build --release --locked --workspace --bin sluice --bin sluice-chaos
	@"$${CARGO_TARGET_DIR:-target}/release/sluice-chaos" --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

lint: fmt-check clippy deny ## Check format, lints, licences and sources of dependencies

fmt: ## Format the code
	@scripts/prerequisites cargo
	@cargo fmt --all

fmt-check:
	@scripts/prerequisites cargo
	@cargo fmt --all --check

clippy:
	@scripts/prerequisites $(BUILD_NEEDS)
	@cargo clippy --workspace --all-targets --locked -- -D warnings

deny: ## Check licences, bans, sources and known faults of dependencies
	@scripts/prerequisites cargo python3
	@scripts/deny

image: ## Build the container image
	@scripts/prerequisites docker
	@docker compose build

secrets:
	@scripts/compose-secrets

up: secrets ## Run the pipeline in containers, with Prometheus and Grafana
	@scripts/prerequisites docker
	@docker compose up --build --detach --wait
	@echo "webhooks http://127.0.0.1:8080/webhooks/NAME   grafana http://127.0.0.1:3000   prometheus http://127.0.0.1:9090"

down: ## Stop the containers; their volumes stay
	@scripts/prerequisites docker
	@docker compose down

clean: ## Remove what was built
	@cargo clean
