# A thin front for CMake: `make` builds, `make demo` talks, `make test` tests.
BUILD := build
JOBS  := $(shell nproc 2>/dev/null || echo 2)

.PHONY: all deps demo test check format install clean

all: deps
	cmake --preset release
	cmake --build $(BUILD)/release -j $(JOBS)

deps:
	@tools/install-deps.sh build

# The quick loop while writing code: no installs, no sanitizers.
check:
	cmake --preset release
	cmake --build $(BUILD)/release -j $(JOBS)
	ctest --test-dir $(BUILD)/release --output-on-failure

format:
	git ls-files '*.c' '*.h' | xargs clang-format-19 -i

install: all
	cmake --install $(BUILD)/release $(if $(PREFIX),--prefix $(PREFIX))

clean:
	rm -rf $(BUILD)
