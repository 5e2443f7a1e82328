# What the webhook does to a workload, seen through kubectl. Sourced. Needs no pods.

# prepare_namespace : where the example app lives, with the Secret by which it reaches the store.
prepare_namespace() {
	sed "s|vixens-backup-example:0.1.0|$example_image|" "$top/deploy/examples/app.yaml" >"$work/app.yaml"
	sed "s|vixens-backup-example:0.1.0|$example_image|" "$top/deploy/examples/app-emptydir.yaml" >"$work/app-emptydir.yaml"
	grep -v 'vixens.io/backup: tier2' "$work/app.yaml" | sed 's/^  annotations:$/  annotations: {}/' >"$work/vanilla.yaml"
	kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace" >/dev/null
	kubectl -n "$namespace" apply -f "$work/store-secret.yaml" >/dev/null
}

# specification FILE : the Deployment's spec, as the API server would store it.
specification() { kubectl -n "$namespace" apply --dry-run=server -f "$1" -o yaml 2>"$work/warnings" | specification_only; }

# specification_only : of what kubectl prints, the Deployment's spec, without what the API server fills in everywhere.
specification_only() {
	awk '/^(- )?apiVersion: / { wanted = inside = 0 }
		/^ *kind: Deployment$/ { wanted = 1 }
		/^ *status:/ { inside = 0 }
		/^ *spec:$/ && wanted { wanted = 0; inside = 1; indent = match($0, /[^ ]/) }
		inside { print substr($0, indent) }' |
		grep -vE '^ *(terminationMessage(Path|Policy)|defaultMode|schedulerName|dnsPolicy|protocol|apiVersion): '
}

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
	expect 'it adds the init container' contains 'name: init-config' "$difference"
	expect 'it adds the native sidecar' contains 'name: backup-sidecar' "$difference"
	expect 'it takes nothing of the app away' is '' "$(grep -E '^-' <<<"$difference" | grep -vE '^---|RollingUpdate|maxSurge|maxUnavailable|rollingUpdate|terminationGracePeriodSeconds|progressDeadlineSeconds' || true)"
	expect 'it says what would be created beside it' contains 'vixens-backup: would create CronJob/app-backup' "$(<"$work/warnings")"
	expect 'nothing was created' is '' \
		"$(kubectl -n "$namespace" get --ignore-not-found -o name deployment/app persistentvolumeclaim/app-config cronjob/app-backup job/app-restore service/app-backup)"
}

an_annotated_app_is_stored_injected() {
	show kubectl -n "$namespace" apply -f "$work/app.yaml"
	expect 'the stored Deployment has the init container and the sidecar' is 'init-config backup-sidecar' "$(init_containers_of deployment/app)"
}

applied_again_nothing_changes() {
	local before after
	before="generation $(generation_of deployment/app), pod $(kubectl -n "$namespace" get pods -l app=app -o 'jsonpath={.items[*].metadata.uid}')"
	show kubectl -n "$namespace" apply -f "$work/app.yaml"
	after="generation $(generation_of deployment/app), pod $(kubectl -n "$namespace" get pods -l app=app -o 'jsonpath={.items[*].metadata.uid}')"
	expect 'the generation stands still, and the pod is the same one' is "$before" "$after"
	expect 'kubectl diff finds nothing to change' success kubectl -n "$namespace" diff -f "$work/app.yaml"
}

a_mistyped_annotation_is_denied_with_a_suggestion() {
	expect 'a mistyped key is refused, and the right one named' denial 'did you mean vixens.io/backup-retention?' \
		kubectl -n "$namespace" annotate deployment app vixens.io/backup-retension=14d
	expect 'a mistyped value is refused, and the right one named' denial 'did you mean "tier2"?' \
		kubectl -n "$namespace" annotate --overwrite deployment app vixens.io/backup=teir2
}

# A test alone: it takes half a minute.
rolling_the_webhook_refuses_no_apply() {
	local rollout refused=0 asked=0
	kubectl -n vixens-backup rollout restart deployment/vixens-backup | indent
	kubectl -n vixens-backup rollout status deployment/vixens-backup --timeout=300s >"$work/logs/rollout" 2>&1 &
	rollout=$!
	while kill -0 "$rollout" 2>/dev/null; do
		asked=$((asked + 1))
		kubectl -n "$namespace" annotate --dry-run=server --overwrite deployment app "asked=$asked" >/dev/null 2>>"$work/logs/refused" ||
			refused=$((refused + 1))
	done
	expect 'the new replicas are rolled out' success wait "$rollout"
	expect "each of $asked changes to an annotated Deployment in the meantime was answered" is '0 refused' "$refused refused"
}

removing_the_annotation_removes_what_was_injected() {
	show kubectl -n "$namespace" annotate deployment app vixens.io/backup-
	expect 'init container and sidecar are gone' is '' "$(init_containers_of deployment/app)"
	expect 'no volume of ours is left' is 'config' "$(kubectl -n "$namespace" get deployment app -o 'jsonpath={.spec.template.spec.volumes[*].name}')"
	kubectl -n "$namespace" get deployment app -o yaml | specification_only >"$work/left-specification.yaml"
	expect 'its spec is what it would be without us' is '' "$(diff "$work/vanilla-specification.yaml" "$work/left-specification.yaml" || true)"
	[[ $cluster != control-plane ]] || return 0
	eventually 90 'the app runs as it is written, with one container' app_is_vanilla
	eventually 30 'its companions are gone' companions_are_gone
	eventually 20 'its owner is told that backups end' has_event BackupsEnded
	expect 'what was stored stays' contains "$(kept first-file)" "$(bucket lsf minio:vixens-backups/app/config)"
}

app_is_vanilla() {
	[[ $(kubectl -n "$namespace" get pods -l app=app -o 'jsonpath={.items[*].spec.containers[*].name} {.items[*].spec.initContainers[*].name} {.items[*].status.phase}') == 'app  Running' ]]
}
