/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entry of a fuzz target, as libFuzzer and tests/fuzz/replay.c call it. Returns 0.
 */
#ifndef HOLDFAST_TESTS_FUZZ_FUZZ_H
#define HOLDFAST_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length_bytes);

#endif
