# SPDX-License-Identifier: GPL-2.0-or-later
# made by `make manual`: do not edit
_ucidockd_names() {
	{ awk '$1 == "config" { c = $2 ~ /container/; if (c && NF > 2) print $3 } c && $1 == "option" && $2 == "name" { print $3 }' "${UCI_CONFIG_DIR:-/etc/config}/containers" | tr -d "'\""; docker ps -a --format '{{.Names}}'; } 2>/dev/null | sort -u
}

_ucidockd() {
	local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" first="${COMP_WORDS[1]-}"
	local words='' files=''
	case "$before" in
	--config-dir) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--days) COMPREPLY=(); return ;;
	--docker-cert-path) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--docker-host) COMPREPLY=(); return ;;
	--env-file) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--folder) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--for) mapfile -t COMPREPLY < <(compgen -W "in-sync healthy" -- "$word"); return ;;
	--from) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--grep) COMPREPLY=(); return ;;
	--images) mapfile -t COMPREPLY < <(compgen -W "dangling unused" -- "$word"); return ;;
	--into) COMPREPLY=(); return ;;
	--log-level) mapfile -t COMPREPLY < <(compgen -W "debug info warning error" -- "$word"); return ;;
	--older) COMPREPLY=(); return ;;
	--out) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--override-dir) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--path) COMPREPLY=(); return ;;
	--profile) COMPREPLY=(); return ;;
	--project) COMPREPLY=(); return ;;
	--revert) COMPREPLY=(); return ;;
	--save-dir) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--section) COMPREPLY=(); return ;;
	--settle) COMPREPLY=(); return ;;
	--since) COMPREPLY=(); return ;;
	--socket) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--stack) COMPREPLY=(); return ;;
	--state) mapfile -t COMPREPLY < <(compgen -W "running stopped waiting failed warning in-sync" -- "$word"); return ;;
	--state-dir) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--store) mapfile -t COMPREPLY < <(compgen -W "text pyuci" -- "$word"); return ;;
	--test) COMPREPLY=(); return ;;
	--timeout) COMPREPLY=(); return ;;
	--ubus-socket) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--until) COMPREPLY=(); return ;;
	--volume) COMPREPLY=(); return ;;
	-e|--env) COMPREPLY=(); return ;;
	-n|--tail) COMPREPLY=(); return ;;
	-u|--user) COMPREPLY=(); return ;;
	-w|--workdir) COMPREPLY=(); return ;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "check plan reconcile diff history adopt import export status describe wait start stop restart exec logs pull update rollback prune volume move-data backup restore notify run render uci tls help version --help --version" -- "$word")
		return
	fi
	case "$first $COMP_CWORD" in
	"import 2") words="run compose" ;;
	"export 2") words="run compose" ;;
	"volume 2") words="ls get put" ;;
	"tls 2") words="client" ;;
	*)
		case "$first ${COMP_WORDS[2]-}" in
		check\ *) words="--strict --offline --staged --config-dir --override-dir --save-dir --json --help" files=-f ;;
		plan\ *) words="--exit-code --staged --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --help" files=-f ;;
		reconcile\ *) words="--settle --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --help" ;;
		diff\ *) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --help $(_ucidockd_names)" ;;
		history\ *) words="--revert --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --help $(_ucidockd_names)" ;;
		adopt\ *) words="--section --commit --show-secrets --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --help $(_ucidockd_names)" ;;
		import\ run) words="--folder --commit --config-dir --override-dir --json --help" ;;
		import\ compose) words="--project --env-file --profile --folder --commit --config-dir --override-dir --json --help" files=-f ;;
		export\ run) words="--config-dir --override-dir --help $(_ucidockd_names)" ;;
		export\ compose) words="--config-dir --override-dir --help $(_ucidockd_names)" ;;
		status\ *) words="--watch --problems --load --stack --state --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --help $(_ucidockd_names)" ;;
		describe\ *) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --help $(_ucidockd_names)" ;;
		wait\ *) words="--for --timeout --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --help $(_ucidockd_names)" ;;
		start\ *) words="--once --timeout --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --help $(_ucidockd_names)" ;;
		stop\ *) words="--once --timeout --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --help $(_ucidockd_names)" ;;
		restart\ *) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --help $(_ucidockd_names)" ;;
		exec\ *) words="-i --interactive -t --tty -u --user -e --env -w --workdir -d --detach --privileged --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --help $(_ucidockd_names)" ;;
		logs\ *) words="-f --follow -n --tail -t --timestamps --since --until --grep --failed --raw --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --help $(_ucidockd_names)" ;;
		pull\ *) words="--config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --help $(_ucidockd_names)" ;;
		update\ *) words="--check -y --yes --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --help $(_ucidockd_names)" ;;
		rollback\ *) words="--with-data --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --json --no-agent --help $(_ucidockd_names)" ;;
		prune\ *) words="--images --older --build-cache --dry-run -y --yes --config-dir --override-dir --socket --json --help" ;;
		volume\ ls) words="--config-dir --override-dir --socket --json --help $(_ucidockd_names)" ;;
		volume\ get) words="--path --stop --config-dir --override-dir --socket --help $(_ucidockd_names)" ;;
		volume\ put) words="--path --replace --create --stop --config-dir --override-dir --socket --help $(_ucidockd_names)" ;;
		move-data\ *) words="--check -y --yes --config-dir --override-dir --socket --json --help" ;;
		backup\ *) words="--list --config-dir --override-dir --socket --json --help" ;;
		restore\ *) words="--volume --from --into --config-dir --override-dir --socket --json --help" ;;
		notify\ *) words="--test --config-dir --override-dir --socket --json --help" ;;
		run\ *) words="--log-level --ubus-socket --config-dir --override-dir --save-dir --state-dir --socket --docker-host --docker-cert-path --help" ;;
		render\ *) words="--diff --config-dir --override-dir --state-dir --socket --docker-host --docker-cert-path --json --help" ;;
		uci\ *) words="--store --config-dir --override-dir --help show export" ;;
		tls\ client) words="--out --days --config-dir --override-dir --state-dir --json --help" ;;
		help\ *) words=" --help check plan reconcile diff history adopt import export status describe wait start stop restart exec logs pull update rollback prune volume move-data backup restore notify run render uci tls help version" ;;
		version\ *) words=" --help" ;;
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen $files -W "$words" -- "$word")
}
complete -F _ucidockd ucidockd
