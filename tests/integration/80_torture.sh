#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A few cycles of `make torture`: real sites in network namespaces, killed, promoted, returned.
set -uo pipefail
exec /usr/bin/python3 "${HOLDFAST_SOURCE:-.}/tests/torture/torture.py" --cycles 6
