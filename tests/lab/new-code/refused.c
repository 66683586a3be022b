// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What has no effect in a running kernel: whoever reads these tables has done
 * so. The suite inserts this into a unit; the update must be refused.
 */
#include <linux/module.h>

static int lab_parameter = 1;
module_param(lab_parameter, int, 0444);

static int __init lab_start(void)
{
	return lab_parameter;
}
device_initcall(lab_start);

