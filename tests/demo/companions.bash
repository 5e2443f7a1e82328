# What the controller keeps beside an app. Sourced. Needs pods.

# log_of JOB : what its pod has written.
log_of() { kubectl -n "$namespace" logs "job/$1"; }

events_of() { kubectl -n "$namespace" get events --field-selector "involvedObject.name=$1,involvedObject.kind=Deployment" -o 'jsonpath={range .items[*]}{.reason}{": "}{.message}{"\n"}{end}'; }

has_event() { events_of app | grep -q "^$1: "; }

companions_stand_beside_the_app() {
	local id
	eventually 30 'the controller has made them' kubectl -n "$namespace" get cronjob/app-backup job/app-restore service/app-backup
	type_in 'kubectl get cronjobs,jobs,services -l vixens.io/backup-companion'
	kubectl -n "$namespace" get cronjobs,jobs,services -l vixens.io/backup-companion | indent
	expect 'they belong to the Deployment' is 'Deployment/app Deployment/app Deployment/app' \
		"$(kubectl -n "$namespace" get cronjob/app-backup job/app-restore service/app-backup -o 'jsonpath={.items[*].metadata.ownerReferences[0].kind}' | sed 's|Deployment|&/app|g')"
	eventually 60 'the restore Job has looked at the store' kubectl -n "$namespace" wait --for=condition=Complete job/app-restore --timeout=10s
	log_of app-restore | indent
	eventually 20 'its owner is told what a restore would bring' has_event RestoreChecked
	show kubectl -n "$namespace" create job --from=cronjob/app-backup now
	require 'a backup made now comes to its end' success kubectl -n "$namespace" wait --for=condition=Complete job/now --timeout=300s
	log_of now | indent
	id=$(log_of now | tail -n 1)
	expect "its log ends with the snapshot's id" contains '-manual' "$id"
	expect 'and the bucket has that snapshot' contains "$id.json" "$(bucket lsf minio:vixens-backups/app/snapshots)"
	show kubectl -n "$namespace" delete job app-restore
	eventually 60 'one that is deleted comes back, and looks again' kubectl -n "$namespace" wait --for=condition=Complete job/app-restore --timeout=10s
	log_of app-restore | indent
	eventually 20 "its owner is told of the snapshot's id and age" tells_of "$id"
	tell 'kubectl get events:'
	events_of app | indent
	kubectl -n "$namespace" delete job now >/dev/null
}

# A test alone: it takes half a minute.
without_a_sidecar_the_cron_job_does_the_work_itself() {
	local before text
	text="saved by the CronJob at $(date +%T.%N)"
	before=$(pod_of app)
	show kubectl -n "$namespace" annotate deployment app vixens.io/backup-mode=cronjob
	eventually 90 'a new pod is Ready' is_replaced app "$before"
	expect 'it has no sidecar' is 'init-config' "$(kubectl -n "$namespace" get pods -l app=app -o 'jsonpath={.items[0].spec.initContainers[*].name}')"
	eventually 20 'the CronJob mounts the claim, and asks nobody' does_the_work_itself
	in_app app "echo '$text' >/config/by-cron-job.txt"
	show kubectl -n "$namespace" create job --from=cronjob/app-backup itself
	require 'its Job comes to its end' success kubectl -n "$namespace" wait --for=condition=Complete job/itself --timeout=300s
	log_of itself | indent
	expect "its log ends with the snapshot's id" contains '-manual' "$(log_of itself | tail -n 1)"
	expect 'the bucket has what was written' success stored_is app/config/by-cron-job.txt "$text"
	before=$(pod_of app)
	kubectl -n "$namespace" delete job itself >/dev/null
	show kubectl -n "$namespace" annotate deployment app vixens.io/backup-mode-
	eventually 90 'a new pod is Ready' is_replaced app "$before"
}

does_the_work_itself() {
	local pod
	pod=$(kubectl -n "$namespace" get cronjob app-backup -o 'jsonpath={.spec.jobTemplate.spec.template.spec}')
	[[ $pod == *'"claimName":"app-config","readOnly":true'* && $pod != *--ask* ]] || { echo "$pod"; return 1; }
}

tells_of() { events_of app | grep -q "^RestoreChecked: .*: $1, made .* ago, "; }

companions_are_gone() {
	! kubectl -n "$namespace" get cronjob/app-backup 2>/dev/null && ! kubectl -n "$namespace" get job/app-restore 2>/dev/null &&
		! kubectl -n "$namespace" get service/app-backup 2>/dev/null
}
