# The webhook's own Deployment is rolled while people apply. Sourced. Needs pods.

# apply_on_and_on FILE RESULTS : dry runs of one Deployment, each a call of the webhook, until the file RESULTS.stop is
# there. A line each: what was injected, or what went wrong.
apply_on_and_on() {
	local said
	until [[ -e $2.stop ]]; do
		said=$(kubectl -n "$namespace" apply --dry-run=server -f "$1" \
			-o 'jsonpath={.spec.template.spec.initContainers[*].name}' 2>&1) || true
		echo "${said//$'\n'/ }" >>"$2"
	done
}

rolling_the_webhook_loses_no_apply() {
	local results=$work/applies person people=()
	awk 'BEGIN { RS = "---\n" } /kind: Deployment/' "$work/app.yaml" | sed 's/^  name: app$/  name: applied/' >"$work/applied.yaml"
	rm -f "$results".*
	for person in 1 2 3; do
		apply_on_and_on "$work/applied.yaml" "$results.$person" &
		people+=("$!")
		ln -sf "$results.stop" "$results.$person.stop"
	done
	show kubectl -n vixens-backup rollout restart deployment/vixens-backup
	expect 'new pods take over' success kubectl -n vixens-backup rollout status deployment/vixens-backup --timeout=120s
	# The last old pod goes on answering for a while, and then ends.
	eventually 60 'the old pods are gone' two_pods_of_ours
	touch "$results.stop"
	wait "${people[@]}"
	tell "$(cat "$results".[123] | wc -l) applies meanwhile, by three people at once"
	expect 'every one of them was answered, and injected' is 'init-config backup-sidecar' "$(cat "$results".[123] | sort -u)"
}

two_pods_of_ours() { [[ $(kubectl -n vixens-backup get pods -o name | wc -l) == 2 ]]; }
