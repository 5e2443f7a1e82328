# The guide's disasters, with Argo CD as the only hand. Sourced.

a_deleted_namespace_comes_back_with_its_data() {
	local began
	kubectl delete namespace notes --wait=true >/dev/null
	began=$(now)
	tell 'The namespace is gone, with its claim, its volume and its Secret. Argo CD heals it.'
	eventually 120 'the Application is synced and healthy' is_well notes
	expect 'what the app wrote is back' success has_diary notes
	keep namespace-back "$(seconds_since "$began")"
	tell 'kubectl -n notes logs deployment/app -c init-config'
	kubectl -n notes logs deployment/app -c init-config 2>&1 | tail -n 12 | indent
}

# A hand is needed here: what Argo CD heals by itself is a part of the Application, and for that it runs no hooks.
synced_by_hand_into_a_deleted_namespace_a_job_says_what_it_could_not_check() {
	sed -i '/automated:/d' "$repository/apps/notes.yaml"
	commit 'The notes are synced by hand' >/dev/null
	has_git cluster
	eventually 60 'the notes are synced by hand' is_synced_by_hand notes
	has_git notes
	eventually 60 'and Argo CD knows that' is_well notes
	kubectl delete namespace notes --wait=true >/dev/null
	eventually 60 'and Argo CD has seen that all of it is gone' is_gone notes
	type_in 'argocd app sync notes'
	# As Argo CD does it: into what is left of an earlier operation, of parts of the Application perhaps, this one would be merged.
	kubectl -n argocd patch application notes --type=merge \
		-p '{"operation": {"sync": {"syncOptions": ["CreateNamespace=true"]}}, "status": {"operationState": null}}' >/dev/null
	eventually 120 'the Application is synced and healthy' is_well notes
	expect 'before that sync, the Job said what it could not check' contains 'not checked: Secret rclone-minio-config does not exist yet' \
		"$(log_of_presync notes app)"
	expect 'what the app wrote is back' success has_diary notes
	in_git revert --no-edit HEAD >/dev/null
	has_git cluster
	eventually 60 'and by Argo CD again' is_synced_by_itself notes
}

is_synced_by_hand() { [[ -z $(kubectl -n argocd get application "$1" -o 'jsonpath={.spec.syncPolicy.automated}') ]]; }
# What Argo CD still takes for there, a sync leaves out.
is_gone() {
	local statuses
	statuses=$(status "$1" 'resources[*].status')
	[[ -n $statuses && $statuses != *Synced* ]] || { echo "$statuses" && return 1; }
}
is_synced_by_itself() { ! is_synced_by_hand "$1"; }

removing_the_annotation_in_git_removes_everything() {
	sed -i '/vixens.io\/backup: tier2/d' "$repository/wiki/base/app.yaml"
	commit 'No backups for the wiki' >/dev/null
	has_git wiki
	eventually 90 'the wiki is synced and healthy' is_well wiki
	expect 'it is what Git says, and nothing else' is '' "$(kubectl -n wiki get deployment wiki-app -o 'jsonpath={.spec.template.spec.initContainers[*].name}')"
	eventually 30 'its companions and its PreSync Job are gone' has_no_companions wiki
	expect 'what was stored stays' success is_stored wiki
	in_git revert --no-edit HEAD >/dev/null
	has_git wiki
	eventually 90 'and back it comes, with the annotation' is_well wiki
	expect 'injected as before' is 'init-config backup-sidecar' \
		"$(kubectl -n wiki get deployment wiki-app -o 'jsonpath={.spec.template.spec.initContainers[*].name}')"
	expect 'what the app wrote is there' success has_diary wiki
}

has_no_companions() {
	local left
	left=$(kubectl -n "$1" get cronjobs,jobs,services -o name)
	[[ -z $left ]] || { echo "$left" && return 1; }
}

# The rest has been still meanwhile: each Application was applied once for each change in Git that concerns it.
nothing_was_applied_that_did_not_change() {
	expect 'vixens-backup itself was applied once' is 1 "$(status vixens-backup 'history[*].id' | wc -w)"
	expect 'photos was applied once, and its pod is the first' is '1 1' \
		"$(status photos 'history[*].id' | wc -w) $(kubectl -n photos get deployment photos -o 'jsonpath={.metadata.generation}')"
}

it_all_is_written_down_for_the_next_life() {
	local name
	keep cluster-id "$(cluster_id)"
	for name in "${all_apps[@]}"; do
		keep "diary-$name" "$name, the last words at $(date +%T.%N)"
		in_app "$name" "$(deployment_of "$name")" "echo '$(kept "diary-$name")' >/config/diary.txt"
	done
	for name in "${all_apps[@]}"; do
		eventually 30 "what $name wrote is in the bucket" is_stored "$name"
	done
}

a_new_cluster_comes_back_from_git_and_the_bucket() {
	local began name
	start_argo_cd
	began=$(now)
	apply_the_app_of_apps
	eventually 420 'all Applications are synced and healthy' is_well cluster vixens-backup "${all_apps[@]}"
	keep cluster-back "$(seconds_since "$began")"
	applications | indent
	for name in "${all_apps[@]}"; do
		expect "what $name wrote is back" success has_diary "$name"
	done
	expect 'before the sync a Job has said what would come back' contains 'a restore brings' "$(log_of_presync wiki wiki-app)"
	tell 'kubectl -n wiki logs deployment/wiki-app -c init-config'
	kubectl -n wiki logs deployment/wiki-app -c init-config 2>&1 | tail -n 12 | indent
}
