# What the Jobs before a sync say and stop. Sourced.

# log_of_presync NAMESPACE NAME : of the last sync.
log_of_presync() { kubectl -n "$1" logs "job/$2-presync"; }

in_app() { kubectl -n "$1" exec deployment/"$2" -c app -- sh -c "$3"; }

bucket() { env "${store_environment[@]}" rclone --config /dev/null "$@"; }

# The Deployment of each Application.
deployment_of() { case $1 in notes) echo app ;; wiki) echo wiki-app ;; photos) echo photos ;; esac; }

before_the_first_sync_there_is_nothing_to_look_at() {
	expect 'where the Secret comes with the sync, it says what it could not check' contains \
		'not checked: Secret rclone-minio-config does not exist yet' "$(log_of_presync notes app)"
	expect 'where there was no backup, it says so, and lets the sync go on' contains ': no backup' "$(log_of_presync wiki wiki-app)"
	expect 'a chart has its Job, too' contains ': no backup' "$(log_of_presync photos photos)"
}

the_apps_write_and_are_backed_up() {
	local name text
	for name in "${all_apps[@]}"; do
		text="$name, written at $(date +%T.%N)"
		keep "diary-$name" "$text"
		in_app "$name" "$(deployment_of "$name")" "echo '$text' >/config/diary.txt"
	done
	for name in "${all_apps[@]}"; do
		eventually 30 "what $name wrote is in the bucket" is_stored "$name"
	done
}

is_stored() { [[ $(bucket cat "minio:vixens-backups/$(deployment_of "$1")/config/diary.txt") == "$(kept "diary-$1")" ]]; }

has_diary() { [[ $(in_app "$1" "$(deployment_of "$1")" 'cat /config/diary.txt') == "$(kept "diary-$1")" ]]; }

before_each_sync_a_job_looks_at_the_store() {
	local log job made
	release 2
	has_git notes
	eventually 90 'the new release is synced and healthy' is_well notes
	log=$(log_of_presync notes app)
	tell 'kubectl -n notes logs job/app-presync'
	indent <<<"$log"
	expect 'its log says what a restore would bring' contains 'a restore brings' "$log"
	expect 'it has pinned the snapshot that it found' contains "$(bucket cat minio:vixens-backups/app/pins/presync.json | grep -oE '[0-9]{8}T[0-9]{6}Z-[^"]*')" "$log"
	job=$(kubectl -n notes get job app-presync -o 'jsonpath={.status.completionTime}')
	made=$(kubectl -n notes get replicasets --sort-by=.metadata.creationTimestamp -o 'jsonpath={.items[-1:].metadata.creationTimestamp}')
	expect 'it had ended before anything was touched' is yes "$(if [[ ! $job > $made ]]; then echo yes; else echo "no: it ended at $job, and the new pods came at $made"; fi)"
}

# is_stopped_with PART : the sync of notes says PART, and nothing was touched.
is_stopped_with() { says notes "$1"; }

a_store_that_is_away_stops_the_sync_with_its_reason() {
	local before
	before=$(kubectl -n notes get deployment app -o 'jsonpath={.metadata.generation}')
	kubectl -n minio scale deployment/minio --replicas=0 >/dev/null
	kubectl -n minio wait --for=delete pods -l app=minio --timeout=300s >/dev/null
	release 3
	has_git notes
	eventually 120 "Argo CD has the reason" is_stopped_with "can't be reached"
	tell "Argo CD says: $(status notes operationState.message)"
	tell "and of the hook: $(result_of notes)"
	expect 'nothing was touched' is "$before" "$(kubectl -n notes get deployment app -o 'jsonpath={.metadata.generation}')"
	kubectl -n minio scale deployment/minio --replicas=1 >/dev/null
	eventually 120 'once the store is back, the sync goes on by itself' is_well notes
	expect 'the release is there' is 3 "$(kubectl -n notes get deployment app -o 'jsonpath={.spec.template.metadata.annotations.release}')"
}

a_damaged_backup_stops_the_sync_with_its_reason() {
	bucket copyto minio:vixens-backups/app/config/diary.txt "$work/diary.txt"
	bucket deletefile minio:vixens-backups/app/config/diary.txt
	release 4
	has_git notes
	eventually 120 "Argo CD has the reason" is_stopped_with 'config/diary.txt is missing'
	tell "Argo CD says: $(status notes operationState.message)"
	tell "and of the hook: $(result_of notes)"
	bucket copyto "$work/diary.txt" minio:vixens-backups/app/config/diary.txt
	eventually 120 'once it is whole again, the sync goes on by itself' is_well notes
}
