# Two commands do all the set-up: `make demo` and `make test`, each alone on a fresh machine with Go, Python 3 and make.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

GOLANGCI_VERSION := v2.15.0
GOLANGCI := .tools/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The race detector needs a C compiler.
RACE := $(if $(shell command -v cc gcc clang 2>/dev/null),-race,)
PKG ?= ./...

.PHONY: help
help: ## print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

.PHONY: demo
demo: build envoy ## four real Envoys, zero trust: run the story and print what was tried, expected and seen (HOLD=1 leaves it running)
	@bin/credence demo $(if $(HOLD),--hold)

.PHONY: test
test: envoy lint vet generated race ## everything that CI runs: lint, import rules, unit and end-to-end tests with -race, generated files are clean
	@echo "make test: all passed"

.PHONY: check
check: envoy vet ## the quick part of test: vet, import rules and unit tests, without the race detector
	@go test $$(go list ./... | grep -v -e /e2e -e /bench)

.PHONY: race
race: envoy
	@$(if $(RACE),,echo "no C compiler here: the tests run without the race detector")
	@go test $(RACE) -timeout 20m $$(go list $(PKG) | grep -v /e2e)
	@if go list $(PKG) | grep -q /e2e; then go test $(RACE) -timeout 20m ./e2e/...; fi # after the others: their load would make its meshes late

.PHONY: vet
vet:
	@echo "go vet ./..." && go vet ./...

.PHONY: e2e
e2e: envoy ## the end-to-end tests on real Envoys alone
	@go test $(RACE) -count=1 -timeout 20m ./e2e/...

.PHONY: golden
golden: envoy ## rewrite the golden files; read the diff as you read code
	@go test $$(grep -rl --include='*_test.go' 'flag.Bool("update"' . | xargs -n1 dirname | sort -u) -update
	@git --no-pager diff --stat -- '*testdata/*'

.PHONY: envoy
envoy: ## put the pinned Envoy into .tools, its hash checked (ENVOY_PATH, or a supported envoy on PATH, wins)
	@python3 hack/fetch-envoy

.PHONY: build
build: ## build bin/credence
	@echo "building bin/credence ..."
	@go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/credence ./cmd/credence

.PHONY: lint
lint: $(GOLANGCI) ## golangci-lint, the pinned version
	@echo "golangci-lint run" && $(GOLANGCI) run $(PKG)

$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI_VERSION) into .tools (once; some minutes) ..."
	@mkdir -p $(@D)
	@GOBIN="$(CURDIR)/$(@D)" GOFLAGS=-mod=mod nice -n 19 go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

.PHONY: generate
generate: ## rewrite generated files
	@go generate ./...

.PHONY: generated
generated:
	@if ! git rev-parse --git-dir >/dev/null 2>&1; then echo "not a git checkout: whether generated files are clean is not known"; exit 0; fi
	@echo "go generate is clean"
	@state() { git status --porcelain; git diff; }; before=$$(state | cksum); go generate ./...; \
	  test "$$before" = "$$(state | cksum)" || { git status --short; echo "generated files were stale: commit what make generate writes"; exit 1; }

.PHONY: cover
cover: envoy ## test coverage, package by package, in dist/cover.html
	@mkdir -p dist
	@go test -coverpkg=./... -coverprofile=dist/cover.out $(PKG)
	@go tool cover -html=dist/cover.out -o dist/cover.html && go tool cover -func=dist/cover.out | tail -1

.PHONY: bench
bench: ## what a change costs: simulated proxies on Credence and on go-control-plane's cache, in the same run
	@go run ./bench/xds

.PHONY: clean
clean: ## remove what was built; .tools stays
	@rm -rf bin dist .demo
