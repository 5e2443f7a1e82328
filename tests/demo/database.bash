# A database: replicated, lost, restored. Sourced. Needs pods.

# A SQLite database of one table, whose one row says "kept in SQLite".
small_database=H4sIAAAAAAAC/wsO9MksSVVIyy/KTSxRMGZgYmBkZHBQUGBgYGAGYiYGBACxWZD4jAyEATODXjIjL0gx4w4GIBoFVAJujGzi4uKMuSWJSTmpefklqcVggsk5yNUxxFUhxNHJx1UBLKSgkaeQmVeSmp5apFBQlJmbWFSpkJ1aqaNQklpRogmJm7cMQDQKhjsQZGRm0MxOLSgBJgiFYHDOBwDosSY+AAQAAA==

replica_of_notes() { bucket lsf -R minio:vixens-backups/app-database/database/config/notes.db; }
has_a_replica() { [[ $(replica_of_notes) == *.ltx* ]]; }
says_how_far() { in_app app-database 'wget -qO- http://127.0.0.1:9476/metrics | grep "^vixens_backup_database_lag_seconds{"'; }
# is_no_file : no copy of it lies in the mirror, because the replica has it.
is_no_file() { ! bucket lsf minio:vixens-backups/app-database/config | grep -q notes.db; }

a_database_is_replicated_at_tier_3_and_comes_back_to_a_new_pod() {
	local before
	sed "s|vixens-backup-example:0.1.0|$example_image|" "$top/deploy/examples/app-database.yaml" >"$work/app-database.yaml"
	show grep 'vixens.io/backup' "$work/app-database.yaml"
	show kubectl -n "$namespace" apply -f "$work/app-database.yaml"
	eventually 60 'the pod is Ready' is_ready app-database
	type_in "kubectl exec deployment/app-database -c app -- …  # the app makes a SQLite database, /config/notes.db"
	in_app app-database "echo $small_database | base64 -d | gunzip >/config/notes.new && mv /config/notes.new /config/notes.db"
	eventually 40 'the database has a replica in the bucket' has_a_replica
	tell 'rclone lsf -R minio:vixens-backups/app-database/database/config/notes.db'
	replica_of_notes | indent
	expect 'it is no file of the backup' success is_no_file
	eventually 20 'the sidecar says how far the replica is behind' says_how_far
	before=$(pod_of app-database)
	tell 'The volume lives and dies with the pod:'
	show kubectl -n "$namespace" rollout restart deployment/app-database
	eventually 90 'a new pod is Ready' is_replaced app-database "$before"
	tell 'kubectl logs deployment/app-database -c init-config:'
	kubectl -n "$namespace" logs deployment/app-database -c init-config 2>&1 | tail -n 12 | indent
	expect 'the database came from its replica' contains 'restored database /config/notes.db' \
		"$(kubectl -n "$namespace" logs deployment/app-database -c init-config 2>&1)"
	expect 'it has what was in it' success in_app app-database 'grep -q "kept in SQLite" /config/notes.db'
	expect 'its owner is the app' is '1000:1000' "$(in_app app-database 'stat -c %u:%g /config/notes.db')"
}
