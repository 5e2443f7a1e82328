# The end: what was done, what it weighs, how to look around; or what went wrong. Sourced.

closing_table() {
	local seconds verdict title mark
	heading 'What was done'
	while IFS=$'\t' read -r seconds verdict title; do
		mark=$green✓$plain
		[[ $verdict == done ]] || mark=$red✗$plain
		printf '%s%s %6s s  %s\n' "$margin" "$mark" "$seconds" "$title"
	done <"$work/steps"
	printf '%s  %6s s  together\n' "$margin" "$(seconds_since "$(kept began)")"
	[[ $cluster != control-plane ]] || return 0

	heading 'What it is worth'
	row 'from a write to the bucket' "$(value latency ' s')"
	row 'from nothing to Ready, with its files' "$(value recovery ' s')"
	row 'newest lost write' "$(value lost)"

	heading 'What runs in the cluster because of us, and what it weighs'
	weigh
	row 'the image (binary, rclone, Litestream, CA certificates)' "$(value image-size)"
}

row() { printf '%s%-58s %s%s%s\n' "$margin" "$1" "$bold" "$2" "$plain"; }

# value NAME [UNIT]
value() { if [[ -s $work/values/$1 ]]; then echo "$(kept "$1")${2:-}"; else echo '(not measured)'; fi; }

# weigh : memory in use, as the kubelets report it: of each container of ours, and of the apps beside them.
weigh() {
	local node
	for node in $(kubectl get nodes -o name); do
		kubectl get --raw "/api/v1/nodes/${node#node/}/proxy/metrics/resource" || true
	done | awk -F '[{}"]' -v margin="$margin" -v demo="$namespace" '
		/^container_memory_working_set_bytes/ {
			for (i = 2; i < NF; i += 2) { sub(/^,/, "", $i); label[$i] = $(i + 1) }
			split($NF, value, " ")
			if (label["namespace="] == "vixens-backup" || label["namespace="] == demo && label["container="] == "backup-sidecar")
				printf "%s%-58s %.1f MiB\n", margin, label["pod="] " / " label["container="], value[1] / 1048576
		}' | sort
}

how_to_look_around() {
	heading 'Look around'
	case $cluster in
	node)
		row 'a shell where the cluster can be reached' 'make demo-shell'
		tell "  kubectl -n $namespace get pods"
		tell "  kubectl -n $namespace exec deployment/app -c app -- sh -c 'echo hello >/config/hello.txt'"
		tell "  kubectl -n $namespace logs deployment/app -c backup-sidecar"
		tell '  rclone lsl minio:vixens-backups'
		;;
	existing) row 'the example apps' "kubectl -n $namespace get pods" ;;
	control-plane) row 'a shell with kubectl' 'make demo-shell' ;;
	esac
	row 'remove it all' 'make demo-down'
}

# gather_logs : what explains a failure, kept in $work/logs, and its ends printed.
gather_logs() {
	local pod container name file
	heading 'What may explain it'
	[[ -s $root/node/cluster/kubeconfig || $cluster != node ]] || return 0
	kubectl get pods -A -o wide >"$work/logs/pods" 2>&1 || true
	kubectl get events -A --sort-by=.lastTimestamp >"$work/logs/events" 2>&1 || true
	for file in pods events; do
		tell "$file:"
		tail -n 30 "$work/logs/$file" | indent
	done
	if [[ $cluster == node ]]; then
		node status >"$work/logs/node" 2>&1 || indent <"$work/logs/node"
		# It has lines only when the kubelet has ended.
		tail -n 25 "$root/node/cluster/logs/kubelet-keeper.log" | indent
	fi
	for name in vixens-backup "$namespace"; do
		for pod in $(kubectl -n "$name" get pods -o 'jsonpath={.items[*].metadata.name}'); do
			kubectl -n "$name" describe pod "$pod" >"$work/logs/$pod.describe" 2>&1 || true
			for container in $(kubectl -n "$name" get pod "$pod" -o 'jsonpath={.spec.initContainers[*].name} {.spec.containers[*].name}'); do
				file=$work/logs/$pod.$container
				kubectl -n "$name" logs "$pod" -c "$container" >"$file.log" 2>&1 || true
				kubectl -n "$name" logs "$pod" -c "$container" --previous >"$file.previous.log" 2>/dev/null || rm -f "$file.previous.log"
				[[ $container != app ]] || continue
				tell "$name/$pod, container $container:"
				tail -n 25 "$file.log" | indent
			done
			[[ $name == vixens-backup ]] || { tell "$name/$pod:" && sed -n '/^Conditions:/,$p' "$work/logs/$pod.describe" | grep -v '^QoS\|^Node-Sel\|^Toler' | tail -n 25 | indent; }
		done
	done
	[[ ! -d $root/webhook/logs ]] || { cp "$root"/webhook/logs/* "$work/logs/" && tail -n 25 "$root/webhook/logs/vixens-backup.log" | indent; }
	tell "All logs: $work/logs"
}
