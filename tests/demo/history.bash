# Points in time, and the guard. Sourced. Needs pods.

# newest_snapshot : the id of the newest one of the example app, as the bucket lists it.
newest_snapshot() {
	bucket lsf minio:vixens-backups/app/snapshots | sed -n 's/\.json$//p' |
		awk -F '[-.]' '{ printf "%012d %012d %s\n", $2, $3, $0 }' | sort | tail -n 1 | cut -d' ' -f3
}

has_newer_snapshot() { [[ $(newest_snapshot) != "$1" ]]; }

# operator ARGUMENTS… : a command for people, run with nothing but the store's credentials.
operator() {
	type_in "vixens-backup $*" >&2
	if [[ $cluster == existing ]]; then
		kubectl -n "$namespace" exec store-window -- vixens-backup "$@"
	else
		(cd "$work" && env "${store_environment[@]}" "$binary" "$@")
	fi
}

# brought_back FILE : what an operator's restore has brought.
brought_back() {
	if [[ $cluster == existing ]]; then
		kubectl -n "$namespace" exec store-window -- rclone cat "/tmp/brought-back/$1"
	else
		cat "$work/brought-back/$1"
	fi
}

snapshots_say_what_changed_and_give_single_files_back() {
	local before good output to
	before=$(newest_snapshot)
	in_app app 'echo "mode: good" >/config/settings.yaml'
	eventually 20 'the good settings are in the bucket' stored_is app/config/settings.yaml 'mode: good'
	eventually 20 'a snapshot holds them' has_newer_snapshot "$before"
	good=$(newest_snapshot)
	keep good "$good"
	tell "the newest snapshot is $good; now comes the mistake:"
	type_in "kubectl exec deployment/app -c app -- sh -c 'echo \"mode: broken\" >/config/settings.yaml; echo oops >/config/mistake.txt'"
	in_app app 'echo "mode: broken" >/config/settings.yaml; echo oops >/config/mistake.txt'
	eventually 20 'the mistake is in the bucket too' stored_is app/config/mistake.txt oops
	eventually 20 'a snapshot holds it' has_newer_snapshot "$good"
	expect 'what it replaced was kept' contains '/config/settings.yaml' "$(bucket lsf -R minio:vixens-backups/app/history)"

	output=$(operator snapshots --destination minio:vixens-backups/app)
	indent <<<"$output"
	expect 'the snapshots are listed' contains "$good" "$output"
	output=$(operator snapshots diff "$good" --destination minio:vixens-backups/app)
	indent <<<"$output"
	expect 'what has changed since then is said' contains config/mistake.txt "$output"
	to=brought-back
	[[ $cluster != existing ]] || to=/tmp/brought-back
	operator restore --destination minio:vixens-backups/app --to "$to" --at "$good" config/settings.yaml 2>&1 | indent
	type_in 'kubectl exec -i deployment/app -c app -- tee /config/settings.yaml <brought-back/config/settings.yaml'
	brought_back config/settings.yaml | kubectl -n "$namespace" exec -i deployment/app -c app -- tee /config/settings.yaml | indent
	expect 'the one file is back, and the rest is as it was' is "mode: good, oops" "$(in_app app 'echo "$(cat /config/settings.yaml), $(cat /config/mistake.txt)"')"
}

an_annotation_goes_back_to_an_earlier_snapshot() {
	local pod
	in_app app 'echo "mode: broken again" >/config/settings.yaml'
	pod=$(pod_of app)
	show kubectl -n "$namespace" annotate deployment app "vixens.io/backup-restore-at=$(kept good)"
	eventually 90 'a new pod is Ready' is_replaced app "$pod"
	tell 'kubectl logs deployment/app -c init-config:'
	kubectl -n "$namespace" logs deployment/app -c init-config 2>&1 | tail -n 12 | indent
	expect 'the good settings are back' is 'mode: good' "$(in_app app 'cat /config/settings.yaml')"
	expect 'the file that the snapshot lacks is gone' lacks mistake.txt "$(in_app app 'ls /config')"
	expect 'what it replaced was kept' contains '/config/mistake.txt' "$(bucket lsf -R minio:vixens-backups/app/history)"

	in_app app 'echo "mode: better" >/config/settings.yaml'
	eventually 20 'later work is in the bucket' stored_is app/config/settings.yaml 'mode: better'
	pod=$(pod_of app)
	show kubectl -n "$namespace" delete pods -l app=app --wait=true
	eventually 90 'a new pod is Ready' is_replaced app "$pod"
	expect 'the annotation, still there, does not roll it back again' is 'mode: better' "$(in_app app 'cat /config/settings.yaml')"
}

an_emptied_volume_is_not_mirrored() {
	local pod stored before full
	full=$(newest_snapshot)
	in_app app 'mkdir -p /config/album && for n in $(seq 1 30); do echo "picture $n" >/config/album/$n; done'
	eventually 20 'thirty files are in the bucket' stored_is app/config/album/30 'picture 30'
	eventually 20 'a snapshot holds them' has_newer_snapshot "$full"
	full=$(newest_snapshot)
	before=$(listing_of_app)
	stored=$(bucket lsf -R --files-only minio:vixens-backups/app/config | sort)
	show kubectl -n "$namespace" exec deployment/app -c app -- sh -c 'rm -rf /config/* /config/.[!.]*'
	eventually 30 'the sidecar says that it does not mirror this, and why' sidecar_refuses
	kubectl -n "$namespace" logs deployment/app -c backup-sidecar | grep -E "$refusals" | tail -n 1 | fold -sw 110 | indent
	expect 'every file is still in the bucket' is "$stored" "$(bucket lsf -R --files-only minio:vixens-backups/app/config | sort)"

	tell "The way back is the snapshot from before: kubectl annotate deployment app vixens.io/backup-restore-at=$full"
	pod=$(pod_of app)
	show kubectl -n "$namespace" annotate --overwrite deployment app "vixens.io/backup-restore-at=$full"
	eventually 90 'a new pod is Ready' is_replaced app "$pod"
	expect 'every file is back' is "$before" "$(listing_of_app)"
}

refusals='asks hold-|no backup was made'
sidecar_refuses() {
	local log
	log=$(kubectl -n "$namespace" logs deployment/app -c backup-sidecar)
	grep -qE "$refusals" <<<"$log" || { tail -n 2 <<<"$log"; return 1; }
}
