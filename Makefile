# Every target installs what it lacks (Debian 12 or Ubuntu, as root; Go and git must be there).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PREFIX := /usr/local

VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
BUILD := go build -trimpath -ldflags "-X main.version=$(VERSION)"

# What the programs in the lab are made of: namespaces and their hosts, peers, captures, load.
LAB := iproute2 iputils-ping iputils-tracepath ethtool tcpdump tshark iperf3 frr bird2 prometheus procps kmod util-linux nftables strace keepalived netsniff-ng
# Who forwards beside us in the benchmark: Open vSwitch and DPDK in user space.
PEERS := openvswitch-switch dpdk-dev
# clang is pinned because the generated objects are committed and compared byte by byte.
COMPILER := clang-19 llvm-19 libbpf-dev linux-libc-dev
LINT := shellcheck
# A guest: the emulator, what its first process is made of, and what fetches and unpacks Debian kernels.
GUEST := qemu-system-x86 busybox-static xz-utils debian-archive-keyring
# The newest kernel of each line.
KERNELS := 5.10 6.1 6.12 6.18 7

FUZZTIME := 2m
# Tests of a package that run beside each other: those that are marked so wait for most of their time.
PARALLEL := 2

comma := ,
empty :=
space := $(empty) $(empty)

.PHONY: help build install deb generate dashboards demo test test-kernels check bench bench-compare bench-bgp bench-moves bench-scrape fuzz clean lab-tools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/roamd and bin/roamctl; needs Go only
	$(BUILD) -o bin/roamd ./loader
	$(BUILD) -o bin/roamctl ./ctl

install: build ## into PREFIX (/usr/local), with the systemd unit
	install -D -m 0755 bin/roamd $(DESTDIR)$(PREFIX)/sbin/roamd
	install -D -m 0755 bin/roamctl $(DESTDIR)$(PREFIX)/bin/roamctl
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's,/usr/local,$(PREFIX),g' packaging/roamd.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/roamd.service

deb: build ## bin/roam_VERSION_ARCH.deb
	tools/deb $(VERSION)

generate: ## compile bpf/ and write its Go bindings
	@tools/need $(COMPILER)
	go generate ./maps/...

dashboards: ## write docs/grafana/*.json and check them and the rules, also against Grafana's own types (needs npm)
	@tools/need prometheus
	go generate ./docs/grafana
	ROAM_SCHEMA=1 go test -count=1 ./docs/...

lab-tools:
	@tools/need $(LAB)

demo: lab-tools build ## two sites on this machine, a host moves between them under traffic
	go run ./lab/demo

test: lab-tools build ## the whole suite: unit, packet, namespace, interop
	go tool gotestsum --format pkgname-and-test-fails --hide-summary=skipped -- -count=1 -timeout 30m -parallel $(PARALLEL) ./...

test-kernels: lab-tools ## the packet and network tests on other kernels, under qemu; KERNELS="5.10 7" takes a choice
	@tools/need $(GUEST)
	KERNELS="$(KERNELS)" go tool gotestsum --format standard-verbose -- -count=1 -timeout 30m ./lab/kernels \
		$(if $(filter file,$(origin KERNELS)),-page $(CURDIR)/docs/kernels.md)

check: ## format, vet, staticcheck, generated code, import rules; lint of shell, metrics, dashboards, rules
	@tools/need $(COMPILER) $(LINT) prometheus
	@unformatted=$$(go tool gofumpt -l . ); [ -z "$$unformatted" ] || { echo "not formatted (go tool gofumpt -w .): $$unformatted"; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	GOARCH=arm64 go build ./...
	shellcheck tools/* .ci/run perf/nic/measure
	tools/check-generated
	go test -count=1 -run 'TestImports|TestMetrics|TestLint|TestCommitted|TestRules|TestAlerts' ./loader ./loader/metrics ./docs/...

fuzz: lab-tools ## the parsers and the packet walk, FUZZTIME each; ROAM_PACKETS random packets against the naive model
	@go list -f '{{if .TestGoFiles}}{{.Dir}} {{.ImportPath}}{{end}}{{if .XTestGoFiles}} {{.Dir}} {{.ImportPath}}{{end}}' ./... | \
	while read -r dir package _; do \
		grep -ho '^func Fuzz[A-Za-z0-9]*' "$$dir"/*_test.go 2>/dev/null | sed 's/^func //' | while read -r target; do \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -parallel 1 "$$package" || exit 1; \
		done || exit 1; \
	done
	ROAM_PACKETS=$${ROAM_PACKETS:-1000000} go test -count=1 -run TestModel ./bpf/test

bench: lab-tools ## the performance suite with its peers, as ratios from one run; ONLY="micro system" takes a choice
	@tools/need $(PEERS) || echo "peers that are missing say so in their rows"
	go run ./perf -page docs/performance.md $(if $(ONLY),-only $(subst $(space),$(comma),$(strip $(ONLY))))

bench-compare: lab-tools ## what a change did: BASE is a commit, measured in turns with this tree, or an earlier bench.json
	@[ -n "$(BASE)" ] || { echo "bench-compare: BASE is missing: make bench-compare BASE=main"; exit 2; }
	go run ./perf -compare $(BASE)

bench-bgp: lab-tools ## a million EVPN hosts of a BGP neighbour, beside FRR and the kernel; needs 5 GB
	go run ./perf -bgp

bench-moves: lab-tools ## hosts that move, in every way, beside FRR and the kernel doing the same; ten minutes
	go run ./perf -moves

bench-scrape: lab-tools ## the data path's rate while Prometheus scrapes, beside its rate while nobody does
	go run ./perf -scrape

clean: ## remove what was built
	rm -rf bin
