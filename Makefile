# SPDX-License-Identifier: Apache-2.0
#
# `make help` lists the targets. Everything built lands in $(BUILD); sources are found by wildcard,
# so a new file in a layer's folder needs no line here.
#
#   FLAVOUR=release|asan|tsan|fuzz   each in a directory of its own, no `make clean` in between
#   BUILD=dir   V=1   SEEDS=n   SEED=n   TESTS=glob   T=name   SECONDS=n   DESTDIR=   PREFIX=

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := all
MAKEFLAGS += --no-builtin-rules --no-print-directory
# One job per core unless the command line says otherwise.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif

BUILD ?= build
FLAVOUR ?= release
V ?= 0
SEEDS ?= 4000
SEED ?=
TESTS ?= *
T ?=
SECONDS ?= 30
CYCLES ?= 300
PREFIX ?= /usr/local
DESTDIR ?=
JOBS ?= $(shell nproc)
VERSION := 0.1.0

Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),@:,@printf '  %-8s %s\n' $(1) $(2))

ifeq ($(filter $(FLAVOUR),release asan tsan fuzz),)
$(error FLAVOUR=$(FLAVOUR) is unknown; use release, asan, tsan or fuzz)
endif
OUT := $(patsubst %/,%,$(BUILD))$(if $(filter release,$(FLAVOUR)),,/$(FLAVOUR))

# ---- compiler and flags ------------------------------------------------------------------------

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(FLAVOUR),fuzz)
CC := clang
endif
AR ?= ar
WERROR ?= -Werror

# Ordinary mistakes: unused, uninitialised, misleading, mismatched signs in comparisons.
WARN := -Wall -Wextra
# A name that hides another one is read as the wrong one sooner or later.
WARN += -Wshadow
# A stack size chosen by a length from outside is an attack.
WARN += -Wvla
# Silent narrowing and sign changes of offsets and lengths lose data.
WARN += -Wconversion
# Casting const away breaks the promise that a borrowed buffer stays as it is.
WARN += -Wcast-qual
# A cast that raises alignment is an unaligned load on some machine.
WARN += -Wcast-align
# Format strings are literals and match their arguments, in sign too.
WARN += -Wformat=2 -Wformat-signedness
# An extern function without a header entry has no contract.
WARN += -Wmissing-prototypes
# `f()` declares a function of unknown arguments.
WARN += -Wstrict-prototypes
# A misspelt macro in #if is not silently 0.
WARN += -Wundef
# void * has no size to add to.
WARN += -Wpointer-arith
# String literals are const.
WARN += -Wwrite-strings
# Falling into the next case is written down or a mistake.
WARN += -Wimplicit-fallthrough

HARDEN := -fstack-protector-strong -fstack-clash-protection
CODEGEN := -fno-strict-aliasing -fno-common -fno-omit-frame-pointer -fPIE \
	-ffunction-sections -fdata-sections
FLAVOUR_CFLAGS_release := -O2 -g $(HARDEN) -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 \
	-ftrivial-auto-var-init=zero
# FORTIFY's own wrappers hide calls from the sanitizers, so it is off there.
# Their instrumentation confuses the warnings that follow values, so those do not stop the build.
SANITIZED := -Wno-error=maybe-uninitialized -Wno-error=format-truncation \
	-Wno-error=stringop-overflow -Wno-error=stringop-truncation -Wno-error=array-bounds
FLAVOUR_CFLAGS_asan := -O1 -g -U_FORTIFY_SOURCE -fsanitize=address,undefined \
	-fno-sanitize-recover=all
FLAVOUR_CFLAGS_tsan := -O1 -g -U_FORTIFY_SOURCE -fsanitize=thread
FLAVOUR_CFLAGS_fuzz := -O1 -g -U_FORTIFY_SOURCE -fno-sanitize-recover=all \
	-fsanitize=fuzzer-no-link,address,undefined -Wno-unknown-warning-option
FLAVOUR_LDFLAGS_release :=
FLAVOUR_LDFLAGS_asan := -fsanitize=address,undefined
FLAVOUR_LDFLAGS_tsan := -fsanitize=thread
FLAVOUR_LDFLAGS_fuzz := -fsanitize=address,undefined

# Asked once, when the first file is compiled: `make deps` and `make help` work without them.
PKGS := liburing liblz4 libssl libcrypto libprotobuf-c libconfuse jansson libmicrohttpd \
	smartcols libxxhash libsystemd libcurl
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(patsubst -I%,-isystem %,$$(shell \
	pkg-config --cflags $(PKGS))))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $$(shell pkg-config --libs $(PKGS)) -lisal)$(PKG_LIBS)

CPPFLAGS_ALL = -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DHOLDFAST_VERSION='"$(VERSION)"' \
	-I. -I$(OUT)/gen $(PKG_CFLAGS) $(CPPFLAGS)
CFLAGS_COMMON = -std=gnu17 -pthread $(CODEGEN) $(FLAVOUR_CFLAGS_$(FLAVOUR))
CFLAGS_ALL = $(CFLAGS_COMMON) $(WARN) $(WERROR) $(if $(filter asan tsan,$(FLAVOUR)),$(SANITIZED)) \
	$(CFLAGS)
# Generated code is not ours to mend.
CFLAGS_GEN = $(CFLAGS_COMMON) -w $(CFLAGS)
LDFLAGS_ALL = -pie -pthread -Wl,-z,relro,-z,now -Wl,--gc-sections -Wl,--as-needed \
	$(FLAVOUR_LDFLAGS_$(FLAVOUR)) $(LDFLAGS)

# ---- sources -----------------------------------------------------------------------------------

in_folder = $(sort $(wildcard $(1)/*.c $(1)/*/*.c))
to_obj = $(patsubst %.c,$(OUT)/obj/%.o,$(1))

SRC_base := $(call in_folder,core/base)
SRC_proto := $(call in_folder,proto)
SRC_io := $(call in_folder,core/io)
SRC_conf := $(call in_folder,core/conf)
SRC_group := $(call in_folder,core/group)
SRC_block := $(call in_folder,core/block)
SRC_agent := $(filter-out agent/main.c,$(call in_folder,agent))
SRC_engine := $(filter-out engine/main.c,$(call in_folder,engine))
SRC_cli := $(filter-out cli/main.c,$(call in_folder,cli))
SRC_sim := $(filter-out tests/sim/main.c,$(call in_folder,tests/sim))

PROTO_FILES := $(sort $(wildcard proto/*.proto))
GEN_C := $(PROTO_FILES:%.proto=$(OUT)/gen/%.pb-c.c)
GEN_H := $(GEN_C:.c=.h)
GEN_OBJ := $(GEN_C:$(OUT)/gen/%.c=$(OUT)/obj/gen/%.o)

# A layer without sources yet has no library.
lib_of = $(if $(strip $(SRC_$(1))$(if $(filter proto,$(1)),$(GEN_OBJ))),$(OUT)/lib$(1).a)
libs_of = $(foreach l,$(1),$(call lib_of,$(l)))
LAYERS := base proto io conf group block agent engine cli sim
LIBS := $(call libs_of,$(LAYERS))

PROGRAMS := $(if $(wildcard agent/main.c),$(OUT)/holdfast-agent) \
	$(if $(wildcard engine/main.c),$(OUT)/holdfast-engine) \
	$(if $(wildcard cli/main.c),$(OUT)/holdfast) \
	$(if $(wildcard tests/sim/main.c),$(OUT)/holdfast-sim)

find_in = $(if $(wildcard $(1)),$(sort $(shell find $(1) -name '*.c' $(2))))
UNIT_SRC := $(call find_in,tests/unit,-name 'test_*.c')
UNIT_HELPER_OBJ := $(call to_obj,$(call find_in,tests/unit,! -name 'test_*.c'))
UNIT_BIN := $(UNIT_SRC:%.c=$(OUT)/%)
# The part of the unit tests that TESTS names, so that one test can be built on its own.
UNIT_WANTED := $(if $(filter $(TESTS),*),$(UNIT_BIN),$(patsubst %.c,$(OUT)/%,$(call \
	find_in,tests/unit,-name 'test_*.c' -path 'tests/$(TESTS).c')))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BIN := $(FUZZ_SRC:%.c=$(OUT)/%)
FUZZ_HELPER_OBJ := $(call to_obj,$(filter-out $(FUZZ_SRC) tests/fuzz/replay.c,$(wildcard \
	tests/fuzz/*.c)))

# Every tracked file of ours that the checks read; a tarball has no index, so there it is a search.
TRACKED_C = $(shell git ls-files -- '*.c' '*.h' 2>/dev/null | xargs -r ls -d 2>/dev/null || find \
	core proto agent engine cli tests bench -name '*.[ch]')
TRACKED_SH = $(shell git ls-files 2>/dev/null | xargs -r grep -lIE -m1 '^.!/.*\b(ba)?sh\b' -- \
	2>/dev/null || true)
FILES ?= $(TRACKED_C)

# ---- build -------------------------------------------------------------------------------------

.PHONY: all
all: programs ## build the programs (the default)

.PHONY: programs build-tests build-unit
programs: $(PROGRAMS) $(LIBS)
build-unit: $(UNIT_WANTED)
build-tests: programs $(UNIT_BIN) $(FUZZ_BIN)

.PHONY: asan tsan
asan tsan: ## build programs and tests with ASan+UBSan, or with TSan
	+$(Q)$(MAKE) FLAVOUR=$@ build-tests

# Objects follow the flags: another compiler or option rebuilds, the same one does not.
FLAGS_FILE := $(OUT)/.flags
.PHONY: force
$(FLAGS_FILE): force
	@mkdir -p $(@D); new=$$(printf '%s\n' $(call quote,$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL))); \
	[[ -f $@ && "$$new" == "$$(cat $@)" ]] || printf '%s\n' "$$new" >$@
quote = '$(subst ','\'',$(1))'

$(OUT)/gen/%.pb-c.c $(OUT)/gen/%.pb-c.h &: %.proto
	$(call say,PROTOC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)protoc-c --c_out=$(OUT)/gen $<

$(OUT)/obj/gen/%.o: $(OUT)/gen/%.c $(FLAGS_FILE)
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_GEN) -MMD -MP -c -o $@ $<

$(OUT)/obj/%.o: %.c $(FLAGS_FILE) | $(GEN_H)
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

# The member list is a prerequisite through the objects; a removed source leaves no old member.
define library
$(OUT)/lib$(1).a: $(call to_obj,$(SRC_$(1))) $(if $(filter proto,$(1)),$(GEN_OBJ))
	$$(call say,AR,$$@)
	$(Q)rm -f $$@
	$(Q)$(AR) rcs $$@ $$(filter %.o,$$^)
endef
$(foreach l,$(LAYERS),$(eval $(call library,$(l))))

link = $(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) \
	-Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(PKG_LIBS)

define program
$(OUT)/$(1): $(OUT)/obj/$(2)/main.o $(call libs_of,$(3))
	$$(call say,LD,$$@)
	$(Q)$$(link)
endef
DAEMON_LAYERS := base proto io conf group block
$(eval $(call program,holdfast-agent,agent,$(DAEMON_LAYERS) agent))
$(eval $(call program,holdfast-engine,engine,$(DAEMON_LAYERS) engine))
$(eval $(call program,holdfast,cli,base proto io conf group cli))
$(eval $(call program,holdfast-sim,tests/sim,$(DAEMON_LAYERS) agent engine sim))

# A unit test links its layer and what lies below it: layering holds for the linker as well.
LAYERS_OF_core/base := base
LAYERS_OF_proto := base proto
LAYERS_OF_core/io := base proto io sim
LAYERS_OF_core/conf := base proto conf
LAYERS_OF_core/group := base proto io conf group sim
LAYERS_OF_core/block := base proto io conf group block sim
LAYERS_OF_cli := base proto io conf group cli
LAYERS_OF_sim := base proto io sim
UNIT_DIRS := core/base proto core/io core/conf core/group core/block cli sim
define unit_test
$(OUT)/$(1): $(OUT)/obj/$(1).o $(filter $(OUT)/obj/$(dir $(1))%,$(UNIT_HELPER_OBJ)) \
	$(call libs_of,$(2))
	$$(call say,LD,$$@)
	$(Q)mkdir -p $$(@D)
	$(Q)$$(link) -lcmocka
endef
unit_layers = $(firstword $(foreach d,$(UNIT_DIRS),$(if $(filter \
	tests/unit/$(d)/%,$(1)),LAYERS_OF_$(d))) LAYERS)
$(foreach t,$(UNIT_SRC:.c=),$(eval $(call unit_test,$(t),$($(call unit_layers,$(t))))))

# Outside the fuzz flavour a fuzzer is a replayer of its corpus.
ifeq ($(FLAVOUR),fuzz)
FUZZ_MAIN :=
FUZZ_LINK := -fsanitize=fuzzer
else
FUZZ_MAIN := $(OUT)/obj/tests/fuzz/replay.o
FUZZ_LINK :=
endif
$(FUZZ_BIN): $(OUT)/tests/fuzz/%: $(OUT)/obj/tests/fuzz/%.o $(FUZZ_HELPER_OBJ) $(FUZZ_MAIN) $(LIBS)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(link) $(FUZZ_LINK)

# Test programs bring their own rules.
-include $(sort $(wildcard tests/*/rules.mk))

# Test objects are kept: they are intermediate files only in make's eyes.
.SECONDARY:
-include $(shell find $(OUT)/obj -name '*.d' 2>/dev/null)

# ---- checks ------------------------------------------------------------------------------------

.PHONY: deps
deps: ## install the Debian packages that build and tests need
	$(Q)dist/deps

RUN = OUT=$(abspath $(OUT)) SEEDS=$(SEEDS) TESTS='$(TESTS)' tests/run

.PHONY: test check-unit check-fuzz check-sim check-integration check-asan check-tsan
test: deps ## install what is missing, build, and run every test (TESTS=glob picks some)
	+$(Q)$(MAKE) build-tests
	$(Q)$(RUN)
check-unit: build-unit ## build and run the unit tests only (TESTS=glob picks some)
	$(Q)$(RUN) unit
check-fuzz: $(FUZZ_BIN) ## replay the fuzzers' corpora
	$(Q)$(RUN) fuzz
check-sim: programs ## run SEEDS simulated worlds (4000) and the enumerated scenarios
	$(Q)$(RUN) sim enum
check-integration: programs ## run the integration tests against foreign clients
	$(Q)$(RUN) integration
check-asan check-tsan: check-%: ## unit tests and corpora under a sanitizer
	+$(Q)$(MAKE) FLAVOUR=$* build-tests
	$(Q)OUT=$(abspath $(OUT)/$*) SEEDS=$(SEEDS) TESTS='$(TESTS)' tests/run unit fuzz

.PHONY: sim model torture mutants fuzz bench demo
sim: programs ## simulate: SEED=n replays one run and tells its story, else SEEDS runs
	$(Q)[[ -x $(OUT)/holdfast-sim ]] || { \
		echo "sim: tests/sim/main.c is not there" >&2; exit 1; }
	$(Q)$(OUT)/holdfast-sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))
model: deps ## search the model of epochs, return and switchover with spin, and its planted bugs
	$(Q)OUT=$(abspath $(OUT)) tests/model/run
torture: programs ## real sites, CYCLES (300) times killed and promoted; MINUTES=n simulates new seeds
	$(Q)OUT=$(abspath $(OUT)) tools/torture $(if $(filter command line environment,$(origin \
		MINUTES)),minutes $(MINUTES),cycles $(CYCLES))
mutants: ## plant the bugs of tests/mutants, one at a time: each must be noticed (T=name)
	$(Q)OUT=$(abspath $(OUT)) tools/mutants $(T)
fuzz: ## fuzz one target with clang: T=name SECONDS=30
	$(Q)[[ -f tests/fuzz/fuzz_$(T).c ]] || { \
		echo "fuzz: T=$(T) is no target; known: $(FUZZ_SRC:tests/fuzz/fuzz_%.c=%)" >&2; \
		exit 2; }
	+$(Q)$(MAKE) FLAVOUR=fuzz WERROR= $(BUILD)/fuzz/tests/fuzz/fuzz_$(T)
	$(Q)mkdir -p $(BUILD)/fuzz/corpus/$(T)
	$(Q)$(BUILD)/fuzz/tests/fuzz/fuzz_$(T) -max_total_time=$(SECONDS) -print_final_stats=1 \
		-artifact_prefix=$(BUILD)/fuzz/$(T)- $(BUILD)/fuzz/corpus/$(T) \
		$(wildcard tests/fuzz/corpus/$(T))
bench: programs ## measure against qemu-nbd and nbdkit
	$(Q)[[ -x bench/run ]] || { echo "bench: bench/run is not there" >&2; exit 1; }
	$(Q)HOLDFAST_BUILD=$(abspath $(OUT)) bench/run
demo: deps ## two sites on this machine: replicate, kill the primary, promote, verify
	+$(Q)$(MAKE) programs
	$(Q)HOLDFAST_BUILD=$(abspath $(OUT)) HOLDFAST_SOURCE=$(CURDIR) \
		PATH=/usr/bin:/bin:$$PATH tests/demo/demo.sh

.PHONY: lint layering tidy headers format format-check cppcheck shellcheck
lint: layering tidy headers format-check cppcheck shellcheck ## every static check
layering: ## no layer includes a layer above it
	$(call say,LINT,layering)
	$(Q)tools/layering
tidy: ## line, function and file lengths, banned calls, guards, licence lines
	$(call say,LINT,tidy)
	$(Q)tools/tidy

# Each header compiles on its own.
LAYER_DIRS := core/base proto core/io core/conf core/group core/block agent engine cli
HEADER_OK := $(patsubst %,$(OUT)/headers/%.ok,$(sort $(wildcard \
	$(foreach d,$(LAYER_DIRS),$(d)/*.h $(d)/*/*.h))))
headers: $(HEADER_OK) ## every header compiles on its own
$(OUT)/headers/%.ok: % $(FLAGS_FILE) | $(GEN_H)
	$(call say,HEADER,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -fsyntax-only -MMD -MP -MT $@ -MF $@.d -include $< \
		-x c /dev/null
	$(Q)touch $@
-include $(shell find $(OUT)/headers -name '*.d' 2>/dev/null)

format: ## format the C files in place (FILES=... picks some)
	$(Q)clang-format -i $(FILES)
format-check: ## say which C files are not formatted
	$(call say,LINT,format)
	$(Q)clang-format --dry-run --Werror $(FILES)
cppcheck: ## cppcheck over the sources; results are cached
	$(call say,LINT,cppcheck)
	$(Q)mkdir -p $(OUT)/cppcheck
	$(Q)cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 -j $(JOBS) \
		--include=tools/cppcheck.h \
		--enable=warning,performance,portability --cppcheck-build-dir=$(OUT)/cppcheck \
		--suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches \
		-D_GNU_SOURCE -DHOLDFAST_VERSION='"$(VERSION)"' -I. \
		$(filter-out tests/% bench/%,$(filter %.c,$(TRACKED_C)))
shellcheck: ## shellcheck over the scripts
	$(call say,LINT,shellcheck)
	$(Q)shellcheck -x $(TRACKED_SH)

# ---- the rest ----------------------------------------------------------------------------------

.PHONY: install clean help
INSTALL_UNITS := $(wildcard dist/*.service dist/*.target dist/systemd/*.service)
INSTALL_MAN := $(wildcard docs/man/*.[1-8])
install: programs ## install under DESTDIR and PREFIX (/usr/local)
	$(Q)install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin
	$(Q)[[ ! -x $(OUT)/holdfast ]] || install -m 755 $(OUT)/holdfast $(DESTDIR)$(PREFIX)/bin/
	$(Q)for daemon in holdfast-agent holdfast-engine; do [[ ! -x $(OUT)/$$daemon ]] || \
		install -m 755 $(OUT)/$$daemon $(DESTDIR)$(PREFIX)/sbin/; done
	$(Q)install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	$(Q)for unit in $(INSTALL_UNITS); do sed 's|/usr/local|$(PREFIX)|' $$unit \
		>$(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/}; done
	$(Q)install -D -m 644 dist/holdfast.conf.example \
		$(DESTDIR)$(PREFIX)/share/doc/holdfast/holdfast.conf.example
	$(Q)install -D -m 644 dist/completion/holdfast \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/holdfast
	$(Q)for page in $(INSTALL_MAN); do install -D -m 644 $$page \
		$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done
clean: ## remove what was built
	$(Q)rm -rf $(OUT)
help: ## this list
	@sed -n 's/^\([a-z][a-z -]*\):.*## /\1|/p' Makefile | \
		while IFS='|' read -r target text; do \
			printf '  %-24s %s\n' "$$target" "$$text"; done
	@echo; echo '  Variables: FLAVOUR=release|asan|tsan  BUILD=dir  V=1'
