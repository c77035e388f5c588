#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The main job on real input: two sites on this machine, a file system and a database on a replicated
# volume, the primary site killed, the standby promoted and verified. Run it with `make demo`.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
export HOLDFAST_SOURCE=${HOLDFAST_SOURCE:-$(dirname "$(dirname "$here")")}
export HOLDFAST_BUILD=${HOLDFAST_BUILD:-$HOLDFAST_SOURCE/build}
exec /usr/bin/python3 "$here/demo.py" "$@"
