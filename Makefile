# Everything that people and the checks do with this tree. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Debian packages: to build, and what tests and benchmarks need besides.
BUILD_PACKAGES := libc-ares-dev libsqlite3-dev pkg-config protobuf-compiler zlib1g-dev
TEST_PACKAGES := dnsmasq-base e2fsprogs gcc iproute2 libnghttp2-dev libprotobuf-c-dev libssl-dev mount nftables openssl \
	protobuf-c-compiler python3 python3-venv
LINT_PACKAGES := git protobuf-compiler python3 python3-venv
BENCH_PACKAGES := curl fio openssl
CLUSTER_BENCH_PACKAGES := golang-etcd-server-dev golang-go golang-google-grpc-dev openssl python3 python3-venv

FORMATTED := Package.swift Sources Tests

# Tests start real processes and wait for them: a few at a time on a small machine.
export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH ?= 4
# For tests that run Python and buf.
export BLOCKTREE_PYTHON := $(CURDIR)/.build/python/bin/python

.PHONY: help
help: ## Lists the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand --tabs=18

# Suites that compute for a long time. They run by themselves: others would wait for a processor so long that their
# connections time out.
COMPUTING := ^(DiscoverySimulation|RaftSimulation|Linearizability)Tests\.
# Each of these runs three processes, and clients.
CLUSTERS := ^ClusterTests\.

.PHONY: demo
demo: ## Builds what is missing and runs the tour, in a temporary directory.
	@scripts/install-packages $(BUILD_PACKAGES)
	swift build --product btnode
	.build/debug/btnode demo

.PHONY: test
test: ## Runs all tests, interoperability included.
	@scripts/install-packages $(BUILD_PACKAGES) $(TEST_PACKAGES)
	@scripts/install-python
	swift build --build-tests
	swift test --skip-build --disable-xctest --skip '$(COMPUTING)|$(CLUSTERS)'
	SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH=2 swift test --skip-build --disable-xctest --filter '$(CLUSTERS)'
	swift test --skip-build --disable-xctest --filter '$(COMPUTING)'

.PHONY: build
build: ## Builds everything, for debugging.
	@scripts/install-packages $(BUILD_PACKAGES)
	swift build

.PHONY: release
release: ## Builds everything, optimized.
	@scripts/install-packages $(BUILD_PACKAGES)
	swift build --configuration release

.PHONY: bench
bench: ## Builds for release, measures, and prints a table and JSON beside the machine's own figures.
	@scripts/install-packages $(BUILD_PACKAGES) $(BENCH_PACKAGES)
	@scripts/install-nginx
	swift build --configuration release --product btbench
	swift build --configuration release --product btnode
	PATH=$(CURDIR)/.build/nginx/usr/sbin:$$PATH .build/release/btbench --json .build/bench.json $(BENCH_OPTIONS)

.PHONY: bench-cluster
bench-cluster: ## Builds for release, and measures a cluster of three processes beside one of etcd.
	@scripts/install-packages $(BUILD_PACKAGES) $(CLUSTER_BENCH_PACKAGES)
	@scripts/install-etcd
	swift build --configuration release --product btbench
	swift build --configuration release --product btnode
	swift build --configuration release --product btrpc
	.build/release/btbench cluster --json .build/bench-cluster.json $(BENCH_OPTIONS)

.PHONY: bench-routes
bench-routes: ## Builds for release, and measures routes, and reads of what other clusters serve and store.
	@scripts/install-packages $(BUILD_PACKAGES)
	swift build --configuration release --product btbench
	swift build --configuration release --product btnode
	swift build --configuration release --product btrpc
	.build/release/btbench routes --json .build/bench-routes.json
	.build/release/btbench reads --json .build/bench-reads.json $(BENCH_OPTIONS)

.PHONY: bench-messages
bench-messages: ## Builds for release, and measures messages between actors of one process.
	@scripts/install-packages $(BUILD_PACKAGES)
	swift build --configuration release --product btbench
	.build/release/btbench messages --local --json .build/bench-messages.json

# How many worlds, and the seed of the first.
SEEDS ?= 500
FROM ?= 1

.PHONY: simulate
simulate: ## Runs the consensus core in SEEDS=500 simulated worlds, from seed FROM=1 on, optimized.
	@scripts/install-packages $(BUILD_PACKAGES)
	swift build --configuration release --product simulate
	.build/release/simulate --seeds $(SEEDS) --from $(FROM)

.PHONY: lint
lint: check-format check-imports check-paths check-schema check-generated ## Checks all that needs no tests.

.PHONY: format
format: ## Formats all Swift code.
	swift format format --in-place --parallel --recursive $(FORMATTED)

.PHONY: generate
generate: ## Brings Generated up to date with Schema.
	@scripts/install-packages $(BUILD_PACKAGES)
	scripts/generate

.PHONY: check-format
check-format: ## Checks the format of all Swift code.
	swift format lint --strict --parallel --recursive $(FORMATTED)

.PHONY: check-imports
check-imports: ## Checks that modules import only what scripts/imports.txt allows them.
	@scripts/install-packages $(LINT_PACKAGES)
	scripts/check-imports

.PHONY: check-paths
check-paths: ## Checks that no file names a place of one machine.
	@scripts/install-packages $(LINT_PACKAGES)
	scripts/check-paths

.PHONY: check-schema
check-schema: ## Lints Schema and checks that it breaks no earlier version of itself.
	@scripts/install-packages $(LINT_PACKAGES)
	@scripts/install-python
	scripts/check-schema

.PHONY: check-generated
check-generated: ## Checks that Generated is what Schema gives.
	@scripts/install-packages $(BUILD_PACKAGES)
	scripts/generate --check

.PHONY: clean
clean: ## Removes all that was built.
	rm -rf .build
