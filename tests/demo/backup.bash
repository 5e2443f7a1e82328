# Files: written, backed up, lost, restored. Sourced. Needs pods.

# bucket ARGUMENTS… : rclone, on the store that the app uses.
bucket() {
	if [[ $cluster == existing ]]; then
		kubectl -n "$namespace" exec store-window -- rclone --config /dev/null "$@"
	else
		env "${store_environment[@]}" rclone --config /dev/null "$@"
	fi
}

# in_app DEPLOYMENT COMMAND : runs a shell command in the app's container.
in_app() { kubectl -n "$namespace" exec "deployment/$1" -c app -- sh -c "$2"; }

pod_of() { kubectl -n "$namespace" get pods -l "app=$1" -o 'jsonpath={.items[*].metadata.name}'; }

# is_ready DEPLOYMENT : one pod, not being deleted, Ready.
is_ready() {
	local line
	line=$(kubectl -n "$namespace" get pods -l "app=$1" -o 'jsonpath={range .items[*]}{.metadata.deletionTimestamp}{"|"}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}')
	[[ $line == '|True' ]] && return
	kubectl -n "$namespace" get pods -l "app=$1" --no-headers
	return 1
}

# stored_is PATH CONTENT : the bucket holds it. An object that is not there reads as empty.
stored_is() { [[ $(bucket cat "minio:vixens-backups/$1") == "$2" ]] || { bucket lsf -R "minio:vixens-backups/${1%%/*}" | head -n 20; return 1; }; }

the_app_runs_with_its_init_container_and_its_sidecar() {
	show kubectl -n "$namespace" apply -f "$work/app.yaml"
	must_be_pulled "$namespace" app=app
	eventually 60 'the pod is Ready' is_ready app
	show kubectl -n "$namespace" get pods -l app=app
	expect 'it has the init container and the sidecar' is 'init-config backup-sidecar' \
		"$(kubectl -n "$namespace" get pods -l app=app -o 'jsonpath={.items[0].spec.initContainers[*].name}')"
	expect 'the start was settled: there was no backup yet' success kubectl -n "$namespace" logs deployment/app -c init-config
	tell 'kubectl logs deployment/app -c init-config:'
	kubectl -n "$namespace" logs deployment/app -c init-config 2>&1 | tail -n 12 | indent
	expect 'vanilla configuration lies in the volume' contains 'use_x_forwarded_for: true' "$(in_app app 'cat /config/configuration.yaml')"
}

a_written_file_is_in_the_bucket_within_seconds() {
	local text="written at $(date +%T.%N)" began
	keep first-file diary.txt
	keep first-text "$text"
	type_in "kubectl exec deployment/app -c app -- sh -c 'echo … >/config/diary.txt; mkdir /config/.storage; echo hidden >/config/.storage/auth; ln -s diary.txt /config/link'"
	in_app app "echo '$text' >/config/diary.txt; mkdir -p /config/.storage /config/empty; echo hidden >/config/.storage/auth; ln -sf diary.txt /config/link; chmod 600 /config/.storage/auth"
	began=$(now)
	eventually 20 'the bucket has the file, with what was written' stored_is app/config/diary.txt "$text"
	keep latency "$(seconds_since "$began")"
	expect 'that took seconds' within 10 "$(kept latency)"
	expect 'files whose names begin with a dot are there too' contains '.storage/auth' "$(bucket lsf -R minio:vixens-backups/app/config)"
	tell 'rclone lsl minio:vixens-backups/app'
	bucket lsl minio:vixens-backups/app | sed 's/\.[0-9]* / /' | indent
}

# start_ticking DEPLOYMENT : has the app write a number ten times a second, until it is stopped; what it has written
# is known here.
start_ticking() {
	kubectl -n "$namespace" exec "deployment/$1" -c app -- \
		sh -c 'n=0; while n=$((n + 1)); echo "$n" >>/config/ticks && echo "$n"; do sleep 0.1; done' >"$work/ticks" 2>/dev/null &
	eventually 20 'the app writes ten times a second' has_ticked 30
}

has_ticked() { (($(wc -l <"$work/ticks") >= $1)); }

# no_tick_is_lost DEPLOYMENT : compares with what came back.
no_tick_is_lost() {
	local written restored
	written=$(tail -n 1 "$work/ticks")
	restored=$(in_app "$1" 'tail -n 1 /config/ticks')
	# Whoever wrote the last one may have ended before that could be heard of.
	if ((restored == written + 1)); then written=$restored; fi
	expect 'not one write was lost, up to the last' is "$written" "$restored"
	keep lost "$(((written - restored) * 100)) ms before the end, of $written writes"
	if ((written == restored)); then keep lost "none, of $written up to the stop of the app"; fi
}

# listing_of_app : every name, mode, owner, time, link and content below /config, but for what is ours and what changes by itself.
listing_of_app() {
	in_app app '
		cd /config
		all() { find . -mindepth 1 -path ./.vixens-backup -prune -o ! -name last-words ! -name ticks "$@"; }
		all -mindepth 1 -exec stat -c "%A %u:%g %Y %N" {} + | sort -k 4
		all -type f -exec sha256sum {} + | sort -k 2'
}

a_deleted_claim_comes_back_with_its_files() {
	local before after volume began
	before=$(listing_of_app)
	start_ticking app
	volume=$(kubectl -n "$namespace" get persistentvolumeclaim app-config -o 'jsonpath={.spec.volumeName}')
	show kubectl -n "$namespace" delete persistentvolumeclaim app-config --wait=false
	show kubectl -n "$namespace" delete pods -l app=app --wait=true
	eventually 60 'the claim, its volume and its folder are gone' volume_is_gone "$volume"
	tell 'Everything the app had is lost now, but for the bucket. Applied again, as Git would:'
	began=$(now)
	show kubectl -n "$namespace" apply -f "$work/app.yaml"
	eventually 60 'the pod is Ready again' is_ready app
	keep recovery "$(seconds_since "$began")"
	tell 'kubectl logs deployment/app -c init-config:'
	kubectl -n "$namespace" logs deployment/app -c init-config 2>&1 | tail -n 12 | indent
	expect 'this is another volume' lacks "$volume" "$(kubectl -n "$namespace" get persistentvolumeclaim app-config -o 'jsonpath={.spec.volumeName}')"
	expect 'the file is back' is "$(kept first-text)" "$(in_app app 'cat /config/diary.txt')"
	after=$(listing_of_app)
	expect 'every name, mode, owner, time and link is what it was' is "$before" "$after"
	expect 'the words that the app wrote when it was told to stop are there too' success in_app app 'test -s /config/last-words'
	no_tick_is_lost app
	expect 'from nothing to Ready took' within 30 "$(kept recovery)"
}

volume_is_gone() {
	! kubectl -n "$namespace" get persistentvolumeclaim app-config 2>/dev/null && ! kubectl get persistentvolume "$1" 2>/dev/null
}

a_graceful_restart_on_an_emptydir_loses_nothing() {
	local text="kept in memory until $(date +%T.%N)"
	show kubectl -n "$namespace" apply -f "$work/app-emptydir.yaml"
	eventually 60 'the pod is Ready' is_ready app-emptydir
	in_app app-emptydir "echo '$text' >/config/notes.txt"
	start_ticking app-emptydir
	expect 'nothing has been told to stop yet' lacks last-words "$(in_app app-emptydir 'ls /config')"
	local before after
	before=$(pod_of app-emptydir)
	show kubectl -n "$namespace" rollout restart deployment/app-emptydir
	eventually 90 'a new pod is Ready' is_replaced app-emptydir "$before"
	after=$(pod_of app-emptydir)
	expect 'a write right before the restart is there' is "$text" "$(in_app app-emptydir 'cat /config/notes.txt')"
	expect 'the write made upon SIGTERM is there: the last backup is made after the app has stopped' success \
		in_app app-emptydir 'test -s /config/last-words'
	no_tick_is_lost app-emptydir
	expect 'it was another pod' lacks "$before" "$after"
	tell "last words of the pod before: $(in_app app-emptydir 'cat /config/last-words')"
}

is_replaced() { [[ $(pod_of "$1") != "$2" ]] && is_ready "$1"; }
