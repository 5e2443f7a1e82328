# What the webhook does to a workload, seen through kubectl. Sourced. Needs no pods.

# prepare_namespace : where the example app lives, with the Secret by which it reaches the store.
prepare_namespace() {
	sed "s|vixens-backup-example:0.1.0|$example_image|" "$top/deploy/examples/app.yaml" >"$work/app.yaml"
	sed "s|vixens-backup-example:0.1.0|$example_image|" "$top/deploy/examples/app-emptydir.yaml" >"$work/app-emptydir.yaml"
	grep -v 'vixens.io/backup: tier2' "$work/app.yaml" | sed 's/^  annotations:$/  annotations: {}/' >"$work/vanilla.yaml"
	kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
	kubectl -n "$namespace" apply -f "$work/store-secret.yaml" >/dev/null
	# The control plane alone makes it as well; pods of a new namespace wait for it.
	eventually 30 "namespace $namespace is there to be used" kubectl -n "$namespace" get serviceaccount default
}

# specification FILE : the Deployment's spec, as the API server would store it.
specification() {
	kubectl -n "$namespace" apply --dry-run=server -f "$1" -o yaml 2>"$work/warnings" |
		sed -n 's/^  - apiVersion: /- apiVersion: /; p' |
		awk '/^- apiVersion: / { wanted = 0 } /^  kind: Deployment$/ { wanted = 1 } /^- apiVersion: apps/ { wanted = 1 }
			/^  *spec:$/ && wanted && !inside { inside = 1; indent = match($0, /[^ ]/) }
			/^  *status: / && inside { inside = wanted = 0 }
			inside { print substr($0, indent) }'
}

template_of() { kubectl -n "$namespace" get "$1" -o 'jsonpath={.spec.template}'; }
generation_of() { kubectl -n "$namespace" get "$1" -o 'jsonpath={.metadata.generation}'; }
init_containers_of() { kubectl -n "$namespace" get "$1" -o 'jsonpath={.spec.template.spec.initContainers[*].name}'; }

a_dry_run_shows_the_whole_injected_pod() {
	prepare_namespace
	type_in "kubectl apply --dry-run=server -f app.yaml -o yaml, without the annotation and with it:"
	specification "$work/vanilla.yaml" >"$work/vanilla-specification.yaml"
	specification "$work/app.yaml" >"$work/injected-specification.yaml"
	local difference
	difference=$(diff -U2 --label 'without vixens.io/backup' --label 'with vixens.io/backup: tier2' \
		"$work/vanilla-specification.yaml" "$work/injected-specification.yaml" || true)
	coloured_diff <<<"$difference"
	[[ ! -s $work/warnings ]] || indent <"$work/warnings"
	expect 'it adds the init container' contains '+      - name: init-config' "${difference//+  */}$difference"
	expect 'it adds the native sidecar' contains 'backup-sidecar' "$difference"
	expect 'it takes nothing of the app away' is '' "$(grep -E '^-' <<<"$difference" | grep -vE '^---|RollingUpdate|maxSurge|maxUnavailable|rollingUpdate|terminationGracePeriodSeconds' || true)"
	expect 'nothing was created' is '' "$(kubectl -n "$namespace" get deployments,pods,persistentvolumeclaims,jobs,cronjobs -o name)"
}

an_annotated_app_is_stored_injected() {
	show kubectl -n "$namespace" apply -f "$work/app.yaml"
	expect 'the stored Deployment has the init container and the sidecar' is 'init-config backup-sidecar' "$(init_containers_of deployment/app)"
}

applied_again_nothing_changes() {
	local before after
	before="generation $(generation_of deployment/app), pod $(kubectl -n "$namespace" get pods -l app=app -o 'jsonpath={.items[*].metadata.uid}')"
	show kubectl -n "$namespace" apply -f "$work/app.yaml"
	show kubectl -n "$namespace" apply --server-side --force-conflicts -f "$work/app.yaml"
	after="generation $(generation_of deployment/app), pod $(kubectl -n "$namespace" get pods -l app=app -o 'jsonpath={.items[*].metadata.uid}')"
	expect 'the generation stands still, and the pod is the same one' is "$before" "$after"
	expect 'kubectl diff finds nothing to change' success kubectl -n "$namespace" diff -f "$work/app.yaml"
}

a_mistyped_annotation_is_denied_with_a_suggestion() {
	local answer
	sed 's|vixens.io/backup: tier2|&\n    vixens.io/backup-retension: 14d|' "$work/app.yaml" >"$work/mistyped.yaml"
	expect 'the mistyped key is refused' refusal kubectl -n "$namespace" apply -f "$work/mistyped.yaml"
	answer=$(kubectl -n "$namespace" apply -f "$work/mistyped.yaml" 2>&1 || true)
	expect 'it names the key that was meant' contains 'vixens.io/backup-retention' "$answer"
	sed 's|vixens.io/backup: tier2|vixens.io/backup: teir2|' "$work/app.yaml" >"$work/mistyped.yaml"
	expect 'the mistyped value is refused' refusal kubectl -n "$namespace" apply -f "$work/mistyped.yaml"
	answer=$(kubectl -n "$namespace" apply -f "$work/mistyped.yaml" 2>&1 || true)
	expect 'it names the value that was meant' contains 'tier2' "${answer//teir2/}"
}

removing_the_annotation_removes_what_was_injected() {
	show kubectl -n "$namespace" annotate deployment app vixens.io/backup-
	expect 'init container and sidecar are gone' is '' "$(init_containers_of deployment/app)"
	expect 'no volume of ours is left' is 'config' "$(kubectl -n "$namespace" get deployment app -o 'jsonpath={.spec.template.spec.volumes[*].name}')"
	expect 'no label of ours is left' lacks 'vixens.io/' "$(template_of deployment/app)"
	[[ $cluster != control-plane ]] || return 0
	eventually 90 'the app runs as it is written, with one container' app_is_vanilla
	expect 'what was stored stays' contains "$(kept first-file)" "$(bucket lsf minio:vixens-backups/app/config)"
}

app_is_vanilla() {
	[[ $(kubectl -n "$namespace" get pods -l app=app -o 'jsonpath={.items[*].spec.containers[*].name} {.items[*].spec.initContainers[*].name} {.items[*].status.phase}') == 'app  Running' ]]
}
