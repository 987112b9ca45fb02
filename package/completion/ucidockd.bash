# SPDX-License-Identifier: GPL-2.0-or-later
# made by `make manual`: do not edit
_ucidockd() {
	local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" first="${COMP_WORDS[1]-}"
	local words='' files=''
	case "$before" in
	--config-dir) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--days) COMPREPLY=(); return ;;
	--docker-cert-path) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--docker-host) COMPREPLY=(); return ;;
	--log-level) mapfile -t COMPREPLY < <(compgen -W "debug info warning error" -- "$word"); return ;;
	--out) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--override-dir) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--save-dir) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--section) COMPREPLY=(); return ;;
	--since) COMPREPLY=(); return ;;
	--socket) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--state-dir) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--store) mapfile -t COMPREPLY < <(compgen -W "text pyuci" -- "$word"); return ;;
	--ubus-socket) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	-n|--tail) COMPREPLY=(); return ;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "run check plan reconcile status render diff adopt logs uci tls --help" -- "$word")
		return
	fi
	case "$first $COMP_CWORD" in
	"tls 2") words="client" ;;
	*)
		case "$first" in
		run) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --log-level --ubus-socket --help" ;;
		check) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --strict --help" ;;
		plan) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --exit-code --staged --help" files=-f ;;
		reconcile) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --help" ;;
		status) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --watch --help" ;;
		render) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --diff --help" ;;
		diff) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --help $(docker ps -a --format '{{.Names}}' 2>/dev/null)" ;;
		adopt) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --section --commit --show-secrets --help $(docker ps -a --format '{{.Names}}' 2>/dev/null)" ;;
		logs) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json -f --follow -n --tail --since --failed --raw --help $(docker ps -a --format '{{.Names}}' 2>/dev/null)" ;;
		uci) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --store --help show export" ;;
		tls) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --out --days --help" ;;
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen $files -W "$words" -- "$word")
}
complete -F _ucidockd ucidockd
