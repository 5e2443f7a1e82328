# Where the steps run. Sourced.
#
#   node            one real node in namespaces of its own, made for the occasion
#   existing        the cluster of KUBECONFIG (USE_EXISTING_CLUSTER=true)
#   control-plane   an API server that runs no pods: as far as a machine without root gets (CONTROL_PLANE_ONLY=true)

beds=$top/tests/bed
namespace=vixens-backup-demo

node() { "$beds/node" "$1" --state "$root/node" "${@:2}"; }

# choose_cluster : sets $cluster.
choose_cluster() {
	local why code=0
	if [[ ${USE_EXISTING_CLUSTER:-} == true ]]; then
		cluster=existing
		return
	elif [[ ${CONTROL_PLANE_ONLY:-} == true ]]; then
		cluster=control-plane
		return
	fi
	why=$(node check 2>&1) || code=$?
	case $code in
	0) cluster=node ;;
	3)
		cluster=control-plane
		tell "$yellow${why#node: }$plain"
		tell 'So this goes as far as the control plane alone can: a real API server and the webhook, and no pods.'
		;;
	*)
		printf '%s\n' "$why" >&2
		exit "$code"
		;;
	esac
}

# start_cluster : sets it up, fresh.
start_cluster() {
	case $cluster in
	node)
		node down
		node up 2>&1 | indent
		node load "$work"/*.tar
		;;
	control-plane)
		"$beds/control-plane" down --state "$root/control-plane"
		"$beds/control-plane" up --state "$root/control-plane" 2>&1 >/dev/null | indent
		;;
	existing) start_in_existing ;;
	esac
}

# inside COMMAND… : where the cluster can be reached.
inside() {
	case $cluster in
	node) node enter -- "$@" ;;
	control-plane) (eval "$("$beds/control-plane" env --state "$root/control-plane")" && "$@") ;;
	existing) "$@" ;;
	esac
}

# stop_cluster : removes what start_cluster and the steps have made, and nothing else.
stop_cluster() {
	case $cluster in
	node) node down ;;
	control-plane)
		end_local_webhook
		"$beds/control-plane" down --state "$root/control-plane"
		;;
	existing) remove_from_existing ;;
	esac
}
