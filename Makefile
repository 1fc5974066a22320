# make test is what CI runs and what a person runs: it needs Go 1.26, git and
# make, and fetches the rest. Every target says what it does as it goes.

GO      ?= go
BIN     := bin
VERSION ?=

# Packages whose full tests compute for minutes. Under the race detector, which
# makes them 5 to 20 times slower, they run with -short; without it, in full.
HEAVY := $(wildcard tests/spec tests/hostile tests/isolation tests/conformance wasm/rewrite)
HEAVY_PKGS := $(addprefix ./,$(HEAVY))
# The hostile guests run through real processes with real deadlines, which the
# race detector makes them miss: they run without it.
RACE_HEAVY_PKGS := $(filter-out ./tests/isolation ./tests/conformance,$(HEAVY_PKGS))
# The race detector, but not in what computes machine code: it is wazero's, works
# on its own data alone, and takes most of the tests' time when it is watched.
# Two of its packages are watched: they instantiate the methods of sync.Map, and
# the linker may take those for everybody's, whose order the detector then misses.
WAZEVO := github.com/tetratelabs/wazero/internal/engine/wazevo
RACE := -race -gcflags=$(WAZEVO)/...=-race=false -gcflags=$(WAZEVO)= -gcflags=$(WAZEVO)/wazevoapi=
# The longest go first: what is short fills in beside them.
LONGEST_PKGS := $(addprefix ./,$(wildcard tests/e2e host/worker host/node))
# What guests are built from; it must build and vet for wasip1 too.
GUEST_PKGS := $(addsuffix /...,$(addprefix ./,$(wildcard wasm/abi wasm/guest wasm/rewrite sdk examples)))

.PHONY: all test check build clean help
.PHONY: bars conformance release sbom vulncheck bench-ray chaos fuzz fmt vet staticcheck tidy generated race-tools wasi-tools s3-server netns-tools deploy-check unit invariants

all: build

help:
	@echo 'make test     everything that CI runs: check, build, all tests'
	@echo 'make check    gofmt, vet on every platform, staticcheck, tidy, generated files'
	@echo 'make unit     the tests alone, under the race detector where it works'
	@echo 'make fuzz     every fuzz target for FUZZTIME (60s); FUZZ=name for some'
	@echo 'make chaos    workloads while workers, nodes, heads and links fail: about an hour; CHAOS=flags'
	@echo 'make bars     what the threat model promises, measured: about ten minutes; BARS="-bar 2" for one'
	@echo 'make conformance  the tests of Go and WASI in sandboxes, random modules: about half an hour'
	@echo 'make bench-ray  Ray and wray in turn, into docs/BENCHMARKS.md; BENCH_RAY=flags'
	@echo 'make release  bin/release/wray, built twice from two directories that must give the same bytes, and its SBOM'
	@echo 'make vulncheck  known vulnerabilities that the code calls'
	@echo 'make build    bin/wray, and proof that arm64 builds'
	@echo 'make clean    remove what was built'

test: race-tools wasi-tools netns-tools s3-server deploy-check check build unit invariants
	@echo 'make test: all passed'

# --- check -----------------------------------------------------------------

check: fmt vet staticcheck tidy generated

fmt:
	@echo '== gofmt'
	@out=$$(git ls-files -co --exclude-standard '*.go' | while read -r f; do [ -f "$$f" ] && echo "$$f"; done | xargs -r gofmt -l); \
	if [ -n "$$out" ]; then echo 'not formatted; run gofmt -w on:'; echo "$$out"; exit 1; fi

vet:
	@for p in linux/amd64 linux/arm64 darwin/arm64 windows/amd64; do \
		echo "== go vet $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) vet ./... || exit 1; \
	done
	@echo '== go vet wasip1/wasm'
	@# -unsafeptr=false: a guest's pointer is a 32-bit number, and the binding
	@# turns numbers into pointers and back on purpose.
	@pkgs=$$(GOOS=wasip1 GOARCH=wasm $(GO) list $(GUEST_PKGS)) && \
	CGO_ENABLED=0 GOOS=wasip1 GOARCH=wasm $(GO) vet -unsafeptr=false $$pkgs

staticcheck: $(BIN)/staticcheck
	@echo '== staticcheck'
	@$(BIN)/staticcheck ./...
	@pkgs=$$(GOOS=wasip1 GOARCH=wasm $(GO) list $(GUEST_PKGS)) && \
	GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 $(BIN)/staticcheck -checks inherit,-U1000 $$pkgs

$(BIN)/staticcheck: internal/tools/go.mod internal/tools/go.sum
	@echo '== build staticcheck, at the version of internal/tools/go.mod'
	@CGO_ENABLED=0 $(GO) -C internal/tools build -o ../../$@ honnef.co/go/tools/cmd/staticcheck

tidy:
	@echo '== go mod tidy'
	@$(GO) mod tidy -diff
	@$(GO) -C internal/tools mod tidy -diff
	@$(GO) -C internal/tools/s3server mod tidy -diff
	@$(GO) -C internal/tools/protogen mod tidy -diff
	@$(GO) -C internal/tools/deploycheck mod tidy -diff
	@$(GO) -C internal/tools/audit mod tidy -diff

# go generate must leave every file as it is. (Golden files of tests are held
# by their tests.)
generated:
	@if ! git grep -q --untracked '^//go:generate' -- '*.go'; then exit 0; fi; \
	echo '== go generate'; \
	sums() { git ls-files -co --exclude-standard -z | xargs -0 sha256sum 2>/dev/null | sort -k2; }; \
	before=$$(mktemp) after=$$(mktemp); trap 'rm -f $$before $$after' EXIT; \
	sums >$$before; $(GO) generate ./... || exit 1; sums >$$after; \
	if ! diff $$before $$after; then echo 'generated files were out of date; commit what go generate wrote'; exit 1; fi

# --- build -----------------------------------------------------------------

build:
	@echo '== build $(BIN)/wray (static), and prove that amd64 and arm64 build'
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o $(BIN)/wray ./cmd/wray
	@# Without -trimpath the other builds share what vet has compiled.
	@for arch in amd64 arm64; do \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -o /dev/null ./cmd/wray || exit 1; \
	done

# What is released: no path, time or state of this machine is in it, so that
# whoever builds the same source with the same Go gets the same bytes.
RELEASE_FLAGS := -trimpath -buildvcs=false -ldflags '-s -w -buildid= -X main.version=$(VERSION)'

release:
	@echo '== build twice, from two directories'
	@mkdir -p $(BIN)/release; dir=$$(mktemp -d); trap 'rm -rf $$dir' EXIT; \
	git ls-files -co --exclude-standard | while read -r f; do [ -f "$$f" ] && echo "$$f"; done | tar -cf - -T - | tar -xf - -C $$dir && \
	CGO_ENABLED=0 $(GO) build $(RELEASE_FLAGS) -o $(BIN)/release/wray ./cmd/wray && \
	(cd $$dir && CGO_ENABLED=0 $(GO) build $(RELEASE_FLAGS) -o $$dir/.wray ./cmd/wray) && \
	a=$$(sha256sum <$(BIN)/release/wray) && b=$$(sha256sum <$$dir/.wray) && \
	if [ "$$a" = "$$b" ]; then echo "BAR 20 0 bytes differ between builds from two directories PASS"; echo "sha256 $$a"; else \
	echo "BAR 20 1 builds from two directories differ FAIL"; exit 1; fi
	@$(MAKE) --no-print-directory sbom

# The modules that a release is built from, as CycloneDX, held to what the program
# itself says.
sbom: $(BIN)/cyclonedx-gomod
	@[ -f $(BIN)/release/wray ] || { mkdir -p $(BIN)/release && CGO_ENABLED=0 $(GO) build $(RELEASE_FLAGS) -o $(BIN)/release/wray ./cmd/wray; }
	@echo '== list the modules of $(BIN)/release/wray'
	@CGO_ENABLED=0 $(BIN)/cyclonedx-gomod bin -json -output $(BIN)/release/wray.cdx.json $(BIN)/release/wray
	@$(GO) -C internal/tools/audit run ./sbomcheck $(CURDIR)/$(BIN)/release/wray.cdx.json $(CURDIR)/$(BIN)/release/wray

$(BIN)/cyclonedx-gomod: internal/tools/audit/go.mod internal/tools/audit/go.sum
	@CGO_ENABLED=0 $(GO) -C internal/tools/audit build -o ../../../$@ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

# Known vulnerabilities, by the reports of module golang.org/x/vulndb, which comes
# as any module does. Where it does not, that is said, and nothing is held.
VULNDB := golang.org/x/vulndb@latest
vulncheck: $(BIN)/govulncheck
	@echo '== govulncheck'
	@dir=$$(mktemp -d); trap 'rm -rf $$dir' EXIT; \
	if ! $(GO) mod download -json $(VULNDB) >$$dir/module.json; then \
		echo '** NO REPORTS: $(VULNDB) cannot be fetched. Known vulnerabilities go unseen. **'; exit 0; fi; \
	reports=$$(sed -n 's/^.*"Dir": "\(.*\)",*$$/\1/p' $$dir/module.json)/data/osv; \
	sed -n 's/^.*"Version": "\(.*\)",*$$/reports of \1/p' $$dir/module.json; \
	$(GO) -C internal/tools/audit run ./vulndb "$$reports" $$dir/db && \
	$(BIN)/govulncheck -db file://$$dir/db ./...

$(BIN)/govulncheck: internal/tools/audit/go.mod internal/tools/audit/go.sum
	@CGO_ENABLED=0 $(GO) -C internal/tools/audit build -o ../../../$@ golang.org/x/vuln/cmd/govulncheck

# --- tests -----------------------------------------------------------------

# The race detector needs a C compiler. Fetch one where that is possible.
race-tools:
	@if ! command -v gcc >/dev/null && ! command -v clang >/dev/null \
	&& [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo '== install gcc, for the race detector'; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq gcc libc6-dev; } >/dev/null 2>&1 || true; \
	fi

# The examples in C and Rust need compilers for WASI, and random modules binaryen.
# Fetch them where that is possible; without them their tests say that they were skipped.
WASI_TOOLS := clang lld wasi-libc libclang-rt-dev-wasm32 rustc libstd-rust-dev-wasm32 binaryen
wasi-tools:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! dpkg -s $(WASI_TOOLS) >/dev/null 2>&1; then \
		echo '== install $(WASI_TOOLS), for the examples'; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(WASI_TOOLS); } >/dev/null 2>&1 \
		|| echo '** they could not be installed: the tests of what is in C and Rust are skipped'; \
	fi

# Hosts of the chaos tests are network namespaces, which root makes with ip.
netns-tools:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v ip >/dev/null; then \
		echo '== install iproute2, for the hosts of the chaos tests'; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends iproute2; } >/dev/null 2>&1 || true; \
	fi; \
	if ip netns add wray-probe-$$$$ 2>/dev/null; then ip netns del wray-probe-$$$$; else \
		echo '** NO NETWORK NAMESPACES: they need root and iproute2. tests/chaos is skipped: **'; \
		echo '** nodes on hosts of their own, whose links, workers and nodes fail.           **'; \
	fi

# Objects that go to S3 are tested with a server. It takes minutes to compile the
# first time; without it those tests say that they were skipped.
s3-server: $(BIN)/s3server

$(BIN)/s3server: $(wildcard internal/tools/s3server/*)
	@echo '== build s3server, for the tests of objects in a bucket'
	@CGO_ENABLED=0 $(GO) -C internal/tools/s3server build -o ../../../$@ . || echo '** it could not be built: the tests of host/spill/s3 are skipped'

# What is deployed is held to the types of Kubernetes and Nomad.
deploy-check: $(BIN)/deploycheck

$(BIN)/deploycheck: $(wildcard internal/tools/deploycheck/*)
	@echo '== build deploycheck, for the tests of what is under deploy'
	@CGO_ENABLED=0 $(GO) -C internal/tools/deploycheck build -o ../../../$@ . || echo '** it could not be built: a test of deploy is skipped'

unit:
	@dir=$$(mktemp -d); trap 'rm -rf $$dir' EXIT; \
	failed=; race=; printf 'package main\nfunc main() {}\n' >$$dir/main.go; \
	if CGO_ENABLED=1 $(GO) build -race -o $$dir/probe $$dir/main.go 2>/dev/null; then race=-race; else \
		echo '**********************************************************************'; \
		echo '** NO RACE DETECTOR: it needs gcc and cgo. Data races go unseen.    **'; \
		echo '** Install gcc and libc6-dev to run what CI runs.                   **'; \
		echo '**********************************************************************'; \
	fi; \
	light=$$({ $(GO) list $(LONGEST_PKGS) && $(GO) list ./...; } | awk '!seen[$$0]++' | grep -vxF "$$(cd . && $(GO) list $(HEAVY_PKGS))") || exit 1; \
	if [ -n "$$race" ]; then \
		echo '== go test -race'; \
		CGO_ENABLED=1 $(GO) test $(RACE) -timeout 20m $$light || failed=1; \
		echo '== go test -race -short, of what computes for long'; \
		CGO_ENABLED=1 $(GO) test $(RACE) -short -timeout 10m $(RACE_HEAVY_PKGS) || failed=1; \
	else \
		echo '== go test'; \
		$(GO) test -timeout 10m $$light || failed=1; \
	fi; \
	echo '== go test, of what computes for long'; \
	$(GO) test -timeout 15m $(HEAVY_PKGS) || failed=1; \
	[ -z "$$failed" ]

# Costly assertions, as CI wants them and users do not.
invariants:
	@echo '== go test -tags invariants'
	@$(GO) test -tags invariants -timeout 5m $$($(GO) list ./scheduler/...)

# Each fuzz target for a while. A find is an input under testdata/fuzz, which
# go test runs from then on. Minimising would take most of the time where a
# target needs milliseconds for an input.
FUZZTIME ?= 60s
FUZZ     ?= .
fuzz:
	@failed=; for dir in $$(git grep -l --untracked '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
		for f in $$($(GO) test -list '^Fuzz' ./$$dir | grep '^Fuzz' | grep -E '$(FUZZ)'); do \
			echo "== go test -fuzz $$f ./$$dir"; \
			$(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./$$dir || failed="$$failed $$dir.$$f"; \
		done; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

# The whole matrix of workloads and faults. CHAOS='-chaos.cell tasks/blackout
# -chaos.seed 7' repeats one.
chaos: netns-tools
	@echo '== go test ./tests/chaos -chaos.full'
	@$(GO) test ./tests/chaos -run TestChaos -v -timeout 3h -chaos.full $(CHAOS)

# What docs/THREATS.md promises, measured: a line for each thing. It wants a
# machine that does nothing else.
bars:
	@$(GO) run ./tests/bars $(BARS)

# What others wrote to test runtimes, in sandboxes. WASI_TESTSUITE=DIR names a
# checkout of the official suite of WASI, branch prod/testsuite-base: no registry
# of packages has it.
conformance: wasi-tools
	@echo '== go test ./tests/spec -random.modules 2000'
	@$(GO) test ./tests/spec -run '^TestRandomModules$$' -v -timeout 30m -random.modules 2000
	@echo '== go test ./tests/conformance -conformance.full'
	@$(GO) test ./tests/conformance -v -timeout 2h -conformance.full

# Ray's microbenchmark and wray's cases of the same names, on this machine.
bench-ray:
	@$(GO) run ./tests/bench/ray $(BENCH_RAY)

clean:
	rm -rf $(BIN)
