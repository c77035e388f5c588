/* SPDX-License-Identifier: Apache-2.0 */
/* Macros of libraries whose headers cppcheck does not read. */
#ifndef HOLDFAST_TOOLS_CPPCHECK_H
#define HOLDFAST_TOOLS_CPPCHECK_H

#define json_array_foreach(array, index, value)                                                    \
	for ((index) = 0; ((value) = json_array_get((array), (index))); (index)++)

#endif
