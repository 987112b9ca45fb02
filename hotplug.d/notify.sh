# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=busybox
#
# Sourced by the hotplug scripts. One notification to the agent, which takes it for a hint and looks for itself.

# ucidockd_notify SUBSYSTEM NAME...: sends the environment variables NAME. Where no agent is on ubus there is nothing
# to wait for: it looks at everything when it starts.
ucidockd_notify() {
	local name value

	# shellcheck source=/dev/null # OpenWrt's
	. /usr/share/libubox/jshn.sh
	json_init
	json_add_string subsystem "$1"
	shift
	json_add_object env
	for name in "$@"; do
		eval "value=\"\${$name}\""
		[ -z "$value" ] || json_add_string "$name" "$value"
	done
	json_close_object
	ubus -t 1 call ucidockd hotplug "$(json_dump)" >/dev/null 2>&1
	return 0
}
