# A thin front for CMake: `make` builds, `make demo` talks, `make test` tests.
JOBS   := $(shell nproc 2>/dev/null || echo 2)
DIBIT  := build/release/dibit
MODEL  := models/smollm2-135m-instruct-2bit
PROMPT := Why is the sky blue?
BUILD  := cmake --build build/release -j $(JOBS)

PORT   := 8080

.PHONY: all demo web test test-full mutants check bench bench-web fuzz coverage format install clean

all:
	@tools/install-deps.sh build
	@cmake --preset release >/dev/null
	@$(BUILD)

# The first time: installs what the build needs, builds, and lets the shipped model answer.
demo:
	@tools/install-deps.sh build
	@mkdir -p build
	@(cmake --preset release && $(BUILD)) >build/demo.log 2>&1 || { cat build/demo.log; exit 1; }
	@echo "> $(PROMPT)"
	@$(DIBIT) run $(MODEL) -p "$(PROMPT)" -n 160 --greedy

# The page: builds the package and the page, serves both with the shipped model, prints the address.
web:
	@tools/install-deps.sh web
	@mkdir -p build
	@echo "building the page (build/web.log says how it goes)"
	@tools/web-build.sh >build/web.log 2>&1 || { tail -n 40 build/web.log; exit 1; }
	@node web/serve.mjs --port $(PORT)

test:
	@tools/install-deps.sh test
	@tools/run-tests.sh

# The whole products of parameters; run it before anything counts as done.
test-full:
	@tools/install-deps.sh test
	@DIBIT_FULL=1 tools/run-tests.sh native webgpu tint oracle oracle_extra conformance asan wasm web tsan aarch64 mutants coverage

# The quick loop while writing code: nothing is installed, no sanitizers.
check:
	@cmake --preset test >/dev/null
	@cmake --build build/test -j $(JOBS)
	ctest --test-dir build/test --output-on-failure -j $(JOBS)

mutants coverage:
	@tools/install-deps.sh test
	@tools/run-tests.sh $@

# Dibit beside ONNX Runtime and llama.cpp on the CPU, in turn; the tables go to docs/BENCHMARKS.md.
bench: all
	@bench/run.sh --markdown docs/BENCHMARKS.md

# Dibit and onnxruntime-web in headless Chromium, in turn; the tables go to docs/BENCHMARKS.md.
bench-web:
	@tools/install-deps.sh web
	@node bench/web/run.mjs --markdown docs/BENCHMARKS.md

fuzz:
	tools/fuzz.sh

format:
	git ls-files '*.c' '*.h' | xargs clang-format-19 -i

install: all
	cmake --install build/release $(if $(PREFIX),--prefix $(PREFIX))

clean:
	rm -rf build
