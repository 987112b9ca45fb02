#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# packages.sh demo|test|browser|engines|bench: installs the Debian packages that a target of the Makefile needs and that are
# missing; `packages.sh install PACKAGE...` installs those. It lists them first, takes no recommended packages, and leaves no
# service of theirs running or enabled: demo and tests start what they need themselves. PYTHON is the Python that the virtual
# environment is made with.

set -eu
# a user's PATH lacks the folders of daemons
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
POLICY="${UCIDOCKD_POLICY:-/usr/sbin/policy-rc.d}" # asked by invoke-rc.d(8) and deb-systemd-invoke(1p); 101 means no
MARK="ucidockd's set-up"
WANTED=''

# need COMMAND PACKAGE...: the packages, if the command is missing
need() {
	command -v "$1" >/dev/null 2>&1 && return 0
	shift
	WANTED="$WANTED $*"
}

for_demo() {
	need dockerd docker.io
	need /bin/busybox busybox-static
	need iptables iptables
	need ip iproute2
	# Debian's python3 alone makes virtual environments without pip
	"${PYTHON:-python3}" -c 'import ensurepip' 2>/dev/null || WANTED="$WANTED python3-venv"
}

for_test() {
	for_demo
	need docker docker-cli
	need docker-registry docker-registry
	need openssl openssl
	need nft nftables
	need mkfs.ext4 e2fsprogs # disks that come and go
	need ping iputils-ping
	need curl curl
	need ps procps
	need npm nodejs npm
}

for_browser() {
	need nginx nginx-light
	need chromium chromium
	need npm nodejs npm
}

# what dockerd 29 is built with, where Go is there to build it
for_engines() {
	command -v go >/dev/null || return 0
	[ -e /usr/include/seccomp.h ] || WANTED="$WANTED libseccomp-dev"
	need pkg-config pkg-config
}

for_bench() {
	for_test
	need nginx nginx-light
}

say() {
	echo "set-up: $*"
}

# apt-get's long output goes into a file that is shown when it fails
quietly() {
	"$@" >"$LOG" 2>&1 </dev/null || {
		code=$?
		tail -n 30 "$LOG" >&2
		say "failed: $*" >&2
		return "$code"
	}
}

# Nothing is started for as long as this process lives; a file of the user's is left as it is.
forbid_services() {
	if [ -e "$POLICY" ] && ! grep -qF "$MARK" "$POLICY"; then
		return 0
	fi
	printf '#!/bin/sh\n# %s: packages start no service while process %s runs\n[ -d /proc/%s ] || exit 0\nexit 101\n' \
		"$MARK" "$$" "$$" >"$POLICY"
	chmod 0755 "$POLICY"
}

allow_services() {
	[ ! -e "$POLICY" ] || ! grep -qF "$MARK" "$POLICY" || rm -f "$POLICY"
}

finish() {
	code=$?
	trap - EXIT INT TERM HUP
	allow_services
	rm -f "$LOG"
	exit "$code"
}

# unit files of systemd that packages bring
units_of() {
	dpkg -L "$@" 2>/dev/null | sed -n 's#^\(/usr\)\{0,1\}/lib/systemd/system/\([^/@]*\.\(service\|socket\|timer\)\)$#\2#p' | sort -u
}

# What the new packages enabled would start with the next boot; where no policy kept it, it runs already.
switch_off() {
	off=''
	for unit in $(units_of "$@"); do
		case "$(ls -d /etc/systemd/system/*.wants/"$unit" 2>/dev/null)" in
		'') continue ;;
		esac
		if command -v systemctl >/dev/null; then
			systemctl disable --quiet --now "$unit" >/dev/null 2>&1 || systemctl disable --quiet "$unit" >/dev/null 2>&1 || true
		fi
		# without systemd the links are all that there is
		rm -f /etc/systemd/system/*.wants/"$unit"
		off="$off $unit"
	done
	[ -z "$off" ] || say "neither started nor enabled:$off (systemctl enable --now NAME does both)"
}

install() {
	if ! command -v apt-get >/dev/null; then
		say "missing:$WANTED; only on Debian and its relatives are they installed from here" >&2
		exit 1
	fi
	if [ "$(id -u)" != 0 ]; then
		say "missing:$WANTED; run make as root, or first: sudo apt-get install --no-install-recommends$WANTED" >&2
		exit 1
	fi
	LOG="$(mktemp)"
	trap finish EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	export DEBIAN_FRONTEND=noninteractive
	quietly apt-get update -q
	there=''
	for package in $WANTED; do
		# up to Debian 12 the docker command is in docker.io
		[ "$package" = docker-cli ] && ! apt-cache show docker-cli >/dev/null 2>&1 || there="$there $package"
	done
	# shellcheck disable=SC2086 # a list
	set -- $there
	plan="$(apt-get install -s -q --no-install-recommends "$@")"
	new="$(echo "$plan" | sed -n 's/^Inst \([^ ]*\) [^[].*/\1/p')"
	say "installing $(echo "$plan" | grep -c '^Inst ') Debian packages for$there:"
	echo "$plan" | sed -n 's/^Inst \([^ ]*\) .*/\1/p' | sort | fmt_words
	forbid_services
	quietly apt-get install -y -q --no-install-recommends -o Dpkg::Use-Pty=0 "$@"
	# shellcheck disable=SC2086 # a list
	[ -z "$new" ] || switch_off $new
}

# words in lines of 110 characters
fmt_words() {
	awk '{ if (length(line) + length($0) > 110) { print "  " line; line = "" } line = line (line == "" ? "" : " ") $0 }
		END { if (line != "") print "  " line }'
}

case "$1" in
demo | test | browser | engines | bench)
	"for_$1"
	;;
install)
	shift
	WANTED=" $*"
	;;
*)
	say "there is no set of packages called $1" >&2
	exit 2
	;;
esac
[ -z "$WANTED" ] || install
