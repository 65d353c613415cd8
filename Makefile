# SPDX-License-Identifier: MIT
# libgradcam: make, make check, make install; see README.md.
VERSION = 0.1.0
SOVERSION = 0
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= cc
CFLAGS ?= -O3 -g
B = build

WARN = -std=c99 -pedantic -Wall -Wextra -Wshadow -Wconversion
GC_CFLAGS = $(WARN) -ffp-contract=fast -fno-math-errno -fvisibility=hidden -fPIC -Iinclude -Isrc $(CFLAGS)
LIBS = -lm -lpthread

# make CBLAS=1: large products by a CBLAS, for contexts that ask for it.  CBLAS_CFLAGS
# and CBLAS_LIBS where pkg-config does not know which.
CBLAS ?=
ifneq ($(CBLAS),)
CBLAS_CFLAGS ?= $(shell pkg-config --cflags openblas 2>/dev/null)
CBLAS_LIBS ?= $(shell pkg-config --libs openblas 2>/dev/null || echo -lcblas)
GC_CFLAGS += -DGC_WITH_CBLAS $(CBLAS_CFLAGS)
LIBS += $(CBLAS_LIBS)
endif

# libpng and libjpeg serve the command only, where pkg-config finds them.
PNG := $(shell pkg-config --exists libpng 2>/dev/null && echo yes)
JPEG := $(shell pkg-config --exists libjpeg 2>/dev/null && echo yes)
CLI_CFLAGS = $(if $(PNG),-DGRADCAM_HAVE_PNG $(shell pkg-config --cflags libpng)) \
             $(if $(JPEG),-DGRADCAM_HAVE_JPEG $(shell pkg-config --cflags libjpeg))
CLI_LIBS = $(if $(PNG),$(shell pkg-config --libs libpng)) $(if $(JPEG),$(shell pkg-config --libs libjpeg))

# src/sources.sh holds the list, so that meson builds from the same one.
LIB_SRC := $(shell sh src/sources.sh library)
CLI_SRC := $(shell sh src/sources.sh command)
DEMO_SRC := $(shell sh src/sources.sh demo)
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(B)/%.o)
SO = $(B)/libgradcam.so.$(VERSION)

.PHONY: all bench check check-long clean conformance demo docs-operators fuzz install tests uninstall
all: $(SO) $(B)/libgradcam.a $(B)/gradcam

$(B)/src/cli/%.o: src/cli/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(GC_CFLAGS) $(CLI_CFLAGS) -MMD -MP -c $< -o $@

$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(GC_CFLAGS) -MMD -MP -c $< -o $@

$(B)/libgradcam.a: $(LIB_OBJ)
	rm -f $@
	ar rcs $@ $(LIB_OBJ)

$(SO): $(LIB_OBJ) src/gradcam.map
	$(CC) -shared -Wl,-soname,libgradcam.so.$(SOVERSION) -Wl,--version-script=src/gradcam.map -o $@ $(LIB_OBJ) $(LDFLAGS) $(LIBS)
	ln -sf libgradcam.so.$(VERSION) $(B)/libgradcam.so.$(SOVERSION)
	ln -sf libgradcam.so.$(SOVERSION) $(B)/libgradcam.so

$(B)/gradcam: $(CLI_OBJ) $(B)/libgradcam.a
	$(CC) -o $@ $(CLI_OBJ) $(B)/libgradcam.a $(LDFLAGS) $(CLI_LIBS) $(LIBS)

TESTS := $(patsubst tests/unit/%.c,$(B)/tests/%,$(filter tests/unit/test_%,$(shell sh src/sources.sh tests)))
CLI_IO := $(filter-out $(B)/src/cli/main.o $(B)/src/cli/cmd_%.o $(B)/src/cli/net_io.o,$(CLI_OBJ))

$(B)/tests/%: tests/unit/%.c $(wildcard tests/unit/*.h) $(B)/libgradcam.a $(CLI_OBJ)
	@mkdir -p $(@D)
	$(CC) $(GC_CFLAGS) -o $@ $< $(TEST_SRC) $(CLI_IO) $(B)/libgradcam.a $(TEST_LDFLAGS) $(LDFLAGS) $(CLI_LIBS) $(LIBS)

# The demo's drawing is under test, too.
$(B)/tests/test_demo: TEST_SRC = docs/demo/scene.c -Idocs/demo
# This test counts what bypasses the host's services.
$(B)/tests/test_guest: TEST_LDFLAGS = -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=pthread_create

# What a stranger writes from the header; in C++ only where there is a compiler.
CXX ?= c++
EXAMPLES := $(B)/examples/peak $(B)/examples/perturb $(if $(shell command -v $(CXX)),$(B)/examples/hooks)
$(B)/examples/peak $(B)/examples/perturb: $(B)/examples/%: docs/examples/%.c $(B)/libgradcam.a
	@mkdir -p $(@D)
	$(CC) $(WARN) $(CFLAGS) -Iinclude -o $@ $< $(B)/libgradcam.a $(LDFLAGS) $(LIBS)
$(B)/examples/hooks: docs/examples/hooks.cpp $(B)/libgradcam.a
	@mkdir -p $(@D)
	$(CXX) -std=c++11 $(filter-out -std=%,$(WARN)) $(CXXFLAGS) -Iinclude -o $@ $< $(B)/libgradcam.a $(LDFLAGS) $(LIBS)

# Every kernel against sums in double; `$(B)/tests/kern --time` is its other use.
KERN_SRC := $(shell sh src/sources.sh kern)
$(B)/tests/kern: $(KERN_SRC) $(wildcard tests/kern/*.h tests/bench/peak*.h) $(B)/libgradcam.a
	@mkdir -p $(@D)
	$(CC) $(GC_CFLAGS) -Itests/bench -o $@ $(KERN_SRC) $(B)/libgradcam.a $(LDFLAGS) $(LIBS)

tests: $(TESTS) $(EXAMPLES) $(B)/tests/kern

check: all tests $(B)/bench
	@sh tests/check.sh $(B) $(TESTS) $(B)/tests/kern

# Every network through every exporter of PyTorch, as a table.
check-long: all
	GRADCAM_LONG=1 GRADCAM_LIBRARY=$(CURDIR)/$(B)/libgradcam.so python3 -m pytest -q tests/python/test_exports.py

# The ONNX node tests and the zoo against tests/python/conformance.tsv.
conformance: all
	GRADCAM_LIBRARY=$(B)/libgradcam.so python3 tests/python/conformance.py $(CONFORMANCE)

# What the usual networks cost here; BENCH='--nets resnet50 --json FILE', see --help.
BENCH_SRC := $(shell sh src/sources.sh bench)
$(B)/bench: $(BENCH_SRC) $(wildcard tests/bench/*.h) $(B)/libgradcam.a
	@mkdir -p $(@D)
	$(CC) $(filter-out -Isrc,$(GC_CFLAGS)) -o $@ $(BENCH_SRC) $(B)/libgradcam.a $(LDFLAGS) $(LIBS)

bench: $(B)/bench
	$(B)/bench $(BENCH)

# After a change of the registry or of docs/operators.tsv.
docs-operators: $(B)/tests/test_operators
	$< --write > docs/operators.md

# libFuzzer on the loader, and forward and backward behind it; needs clang.
FUZZ_SECONDS ?= 600
FUZZ_FLAGS = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined
fuzz:
	@mkdir -p $(B)/fuzz/corpus $(B)/fuzz/found
	$(MAKE) B=$(B)/fuzz CC=clang CFLAGS="$(FUZZ_FLAGS) -fsanitize=fuzzer-no-link" $(B)/fuzz/libgradcam.a
	clang $(GC_CFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer -o $(B)/fuzz/fuzz_load tests/fuzz/fuzz_load.c $(B)/fuzz/libgradcam.a $(LIBS)
	[ ! -d ../shared/onnx ] || [ -e $(B)/fuzz/corpus/seed0000 ] || python3 tests/fuzz/corpus.py $(B)/fuzz/corpus
	nice $(B)/fuzz/fuzz_load -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=2048 -max_len=8192 \
	    -artifact_prefix=$(B)/fuzz/found/ $(B)/fuzz/corpus

# Scenes of garments, and where a network looked; see docs/demo/README.md.
$(B)/demo/demo: $(DEMO_SRC) $(B)/libgradcam.a
	@mkdir -p $(@D)
	$(CC) $(GC_CFLAGS) -Idocs/demo -o $@ $(DEMO_SRC) $(B)/libgradcam.a $(LDFLAGS) $(LIBS)

demo: $(B)/demo/demo
	$(B)/demo/demo docs/demo $(B)/demo/scenes.png

BINDIR = $(PREFIX)/bin
LIBDIR = $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
MANDIR = $(PREFIX)/share/man

install: all
	install -d $(DESTDIR)$(INCLUDEDIR)/gradcam $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1
	install -m 644 include/gradcam/gradcam.h $(DESTDIR)$(INCLUDEDIR)/gradcam/
	install -m 644 $(B)/libgradcam.a $(DESTDIR)$(LIBDIR)/
	install -m 755 $(SO) $(DESTDIR)$(LIBDIR)/
	ln -sf libgradcam.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libgradcam.so.$(SOVERSION)
	ln -sf libgradcam.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libgradcam.so
	install -m 755 $(B)/gradcam $(DESTDIR)$(BINDIR)/
	install -m 644 docs/gradcam.1 $(DESTDIR)$(MANDIR)/man1/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	    -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBS@|$(LIBS)|' pkgconfig/gradcam.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/gradcam.pc

# Removes what install wrote; of folders only the header's own.
uninstall:
	rm -f $(DESTDIR)$(INCLUDEDIR)/gradcam/gradcam.h $(DESTDIR)$(LIBDIR)/libgradcam.a \
	    $(DESTDIR)$(LIBDIR)/libgradcam.so $(DESTDIR)$(LIBDIR)/libgradcam.so.$(SOVERSION) \
	    $(DESTDIR)$(LIBDIR)/libgradcam.so.$(VERSION) $(DESTDIR)$(BINDIR)/gradcam \
	    $(DESTDIR)$(MANDIR)/man1/gradcam.1 $(DESTDIR)$(LIBDIR)/pkgconfig/gradcam.pc
	-rmdir $(DESTDIR)$(INCLUDEDIR)/gradcam

clean:
	rm -rf $(B)

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d)
