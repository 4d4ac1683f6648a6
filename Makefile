# Postroom. `make` alone lists what there is to do.
SHELL := /bin/bash
.DEFAULT_GOAL := help

MODULES   := core queuerunner apiserver deploy e2e migrations
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   := -X github.com/postroom/postroom/core/version.version=$(VERSION)
GOLANGCI  := v2.15.0
CYCLONEDX := v1.10.0
GOVULNCHECK := v1.9.0
TOOLS     := $(CURDIR)/.cache/bin
# Tests of one package run in parallel with those of others; the machine's
# cores are the limit, and a slow machine takes its time.
TESTFLAGS ?= -timeout 30m
# How long each fuzz target runs.
FUZZTIME  ?= 3s
# Of the benchmark: -size, -count, -peers, -workloads, -dir, -json, -svg.
BENCHFLAGS ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## check what the build needs, and install what is missing where that is possible
	@scripts/setup

.PHONY: build
build: setup ## build bin/queuerunner, bin/apiserver, bin/demo and bin/scaled with the version stamped in
	@mkdir -p bin
	cd queuerunner && go build -trimpath -ldflags '$(LDFLAGS)' -o ../bin/queuerunner .
	cd apiserver && go build -trimpath -ldflags '$(LDFLAGS)' -o ../bin/apiserver .
	cd deploy && go build -trimpath -o ../bin/ ./demo ./scaled

.PHONY: run
run: build ## start both services on ./data with a small Maildir, and show what happens to each message
	@exec bin/demo -data data -bin bin

.PHONY: scaled
scaled: build ## start a libsql server, two apiservers, four queuerunners, HAProxy, a collector and Prometheus on ./data/scaled
	@exec bin/scaled

.PHONY: test
test: setup ## run all tests
	@for m in $(MODULES); do echo "== $$m"; (cd $$m && go test $(TESTFLAGS) ./...) || exit 1; done

.PHONY: race
race: setup ## run all tests under the race detector
	@for m in $(filter-out e2e,$(MODULES)); do echo "== $$m"; (cd $$m && go test -race $(TESTFLAGS) ./...) || exit 1; done

# What tells of behaviour, on a libsql server. The tests wait more than they
# compute, so more than one per core.
CONFORMANCE ?= ./queue ./step ./worker ./httpd ./fault ./mail/...
.PHONY: conformance
conformance: setup ## run the tests of behaviour on a libsql server instead of a file
	cd core && POSTROOM_TEST_DATABASE=sqld go test $(TESTFLAGS) -parallel 8 -skip 'Fuzz|ItsModelSays|ConcurrentHistories' $(CONFORMANCE)
	cd core && POSTROOM_TEST_DATABASE=sqld go test $(TESTFLAGS) -run 'ItsModelSays|ConcurrentHistories' ./queue -rapid.checks=15
	cd queuerunner && POSTROOM_TEST_DATABASE=sqld go test $(TESTFLAGS) ./...
	cd apiserver && POSTROOM_TEST_DATABASE=sqld go test $(TESTFLAGS) ./...

.PHONY: fuzz
fuzz: setup ## run each fuzz target for FUZZTIME; what it finds stays under testdata/fuzz as a test
	@scripts/fuzz $(FUZZTIME)

.PHONY: docs
docs: setup ## make docs/reference anew from the code: tables, keys, commands, API
	cd core && POSTROOM_DOCS=write go test -count=1 -run '^TestReferenceOf' ./libsql ./config
	cd queuerunner && POSTROOM_DOCS=write go test -count=1 -run '^TestReferenceOf' .
	cd apiserver && POSTROOM_DOCS=write go test -count=1 -run '^TestReferenceOf' .

.PHONY: fmt
fmt: ## format the code
	@gofmt -w $(MODULES)

.PHONY: lint
lint: setup $(TOOLS)/golangci-lint ## run the linter
	@for m in $(MODULES); do echo "== $$m"; (cd $$m && $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...) || exit 1; done

$(TOOLS)/golangci-lint: Makefile
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	@touch $@

# Its database is asked over the network; without that there is nothing to say.
VULNDB ?= https://vuln.go.dev
.PHONY: vuln
vuln: $(TOOLS)/govulncheck ## look the dependencies up in Go's database of vulnerabilities, where that can be reached
	@if ! curl -fsS -m 20 -o /dev/null $(VULNDB)/index/db.json; then echo "NOT CHECKED: $(VULNDB) cannot be reached"; exit 0; fi; \
	  for m in $(MODULES); do echo "== $$m"; (cd $$m && $(TOOLS)/govulncheck -db $(VULNDB) ./...) || exit 1; done

$(TOOLS)/govulncheck: Makefile
	GOBIN=$(TOOLS) go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK)
	@touch $@

.PHONY: static
static: ## check formatting, vet, tidiness and that each module builds by itself
	@unformatted=$$(gofmt -l $(MODULES)); if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	@for m in $(MODULES); do echo "== $$m"; (cd $$m && go vet ./... && \
	  GOWORK=off go build ./... && GOWORK=off go vet ./... && GOWORK=off go mod tidy -diff) || exit 1; done
	cd e2e/collector && export GOWORK=off && go vet ./... && go mod tidy -diff

.PHONY: check
check: static lint test race conformance fuzz ## everything the gate for a change runs

.PHONY: bench
bench: setup ## measure this queue beside its peers, with BENCHFLAGS; see docs/performance.md
	cd bench && GOWORK=off go run . $(BENCHFLAGS)

.PHONY: bench-check
bench-check: setup $(TOOLS)/golangci-lint ## check the benchmark, which is no part of the workspace
	@cd bench && test -z "$$(gofmt -l .)" && export GOWORK=off && go vet ./... && go mod tidy -diff && \
	  $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./... && go test ./...

.PHONY: deploy-check
deploy-check: setup $(TOOLS)/golangci-lint ## check deploy's files with the libraries of those who read them, which are no part of the workspace
	@cd deploy/check && test -z "$$(gofmt -l .)" && export GOWORK=off && go vet ./... && go mod tidy -diff && \
	  $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./... && go test -count=1 ./...

.PHONY: release
release: $(TOOLS)/cyclonedx-gomod ## build archives, Debian packages, lists of components and checksums into dist/, for ARCHES (amd64, and arm64 where there is a compiler)
	@scripts/setup release
	VERSION='$(VERSION)' TOOLS=$(TOOLS) scripts/release

.PHONY: release-check
release-check: $(TOOLS)/cyclonedx-gomod ## build the committed state twice, compare every byte, and let the programs work; leaves it in dist/
	@scripts/setup release
	scripts/release-check $(TOOLS)

.PHONY: deb-check
deb-check: ## as root: install the package of dist/ in a clean Debian, work with it, and purge it
	deploy/debian/check dist/postroom_*_$$(dpkg --print-architecture).deb

$(TOOLS)/cyclonedx-gomod: Makefile
	GOBIN=$(TOOLS) go install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX)
	@touch $@

.PHONY: sim
sim: setup ## simulate runners, clients and mishaps for SEEDS (a number, or a range such as 17-17), with SERVER=1 on a libsql server; see docs/simulator.md
	@set -o pipefail; cd core && SEEDS=$(or $(SEEDS),1000) go test -count=1 -timeout 0 -v -run 'TestNoSeed$(if $(SERVER),OnAServer)BreaksAPromise' ./internal/sim | grep -v '^=== '

.PHONY: clean
clean: ## remove what was built; data/ stays
	rm -rf bin dist .cache
