# SPDX-License-Identifier: Apache-2.0
# nbdserve: the NBD server over the io_uring back end, for tests with foreign clients.

NBDSERVE_OBJ := $(call to_obj,$(sort $(wildcard tests/nbdserve/*.c)))

$(OUT)/nbdserve: $(NBDSERVE_OBJ) $(call libs_of,base proto io block)
	$(call say,LD,$@)
	$(Q)$(link)

build-tests check-integration: $(OUT)/nbdserve
