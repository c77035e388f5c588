/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast volume resize: the group takes over what a volume's file or device has become.
 */
#include <inttypes.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/document.h"
#include "core/base/macros.h"
#include "core/conf/check.h"
#include "proto/superblock.h"

#define VOLUME_TIMEOUT_MS 600000u /* a device may have to be zeroed by writing */

static int resize(struct cli *cli, const char *group, const char *volume)
{
	char text[UNITS_TEXT_BYTES];
	json_t *json;
	int code;

	code = doc_post(cli, "agent", group, "volume",
			json_pack("{s:s, s:s}", "action", "resize", "volume", volume),
			VOLUME_TIMEOUT_MS, &json);
	if (code != EXIT_OK)
		return code;
	if (cli->json)
		return cli_print_json(json);
	printf("group %s: volume %s is resized to %s (%" PRIu64 " bytes); clients see that when "
	       "they connect again\n",
	       group, volume, units_format_size(doc_u64(json, "size_bytes"), text),
	       doc_u64(json, "size_bytes"));
	json_decref(json);
	return EXIT_OK;
}

int cli_volume(struct cli *cli, int argc, char **argv)
{
	const char *volume;
	int first, code;

	if (cli_parse(cli, argc, argv, NULL, 0, 3, 3, &first, &code) == CLI_STOP)
		return code;
	volume = argv[first + 2];
	if (strcmp(argv[first], "resize") != 0)
		return cli_fail(cli, EXIT_USAGE, "usage", "use resize", "volume: '%s' is unknown",
				argv[first]);
	if (!volume_name_valid(volume))
		return cli_fail(cli, EXIT_USAGE, "usage", CHECK_NAME_RULE,
				"volume: '%s' is no name", volume);
	if (!cli_group(cli, argv[first + 1], &code))
		return code;
	return resize(cli, argv[first + 1], volume);
}
