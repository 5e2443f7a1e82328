# From an empty cluster to all apps, and what Argo CD shows then. Sourced.

all_apps=(notes wiki photos)

# apply_the_app_of_apps : the one thing that a hand does, beside Argo CD itself. Two apps have their Secret before, as by
# somebody's operator for secrets; the third brings its own.
apply_the_app_of_apps() {
	local name
	for name in wiki photos; do
		kubectl create namespace "$name" >/dev/null
		kubectl -n "$name" apply -f "$work/store-secret.yaml" >/dev/null
	done
	kubectl apply -f - <<-YAML | indent
		apiVersion: argoproj.io/v1alpha1
		kind: Application
		metadata: {name: cluster, namespace: argocd}
		spec:
		  project: default
		  source: {repoURL: "file://$repository", targetRevision: main, path: apps}
		  destination: {server: https://kubernetes.default.svc, namespace: argocd}
		  syncPolicy: {automated: {prune: true, selfHeal: true}}
	YAML
}

argo_cd_installs_everything_in_one_breath() {
	local began name
	start_argo_cd
	tell 'In Git: an app of apps, with vixens-backup, plain files, a kustomization and a chart.'
	began=$(now)
	apply_the_app_of_apps
	eventually 180 'all Applications are synced and healthy' is_well cluster vixens-backup "${all_apps[@]}"
	keep installed "$(seconds_since "$began")"
	applications | indent
	expect 'the webhook was ready before the apps came' is '2' "$(kubectl -n vixens-backup get deployment vixens-backup -o 'jsonpath={.status.readyReplicas}')"
	for name in "${all_apps[@]}"; do
		expect "$name was injected when it was made: there was one rollout" is 'init-config backup-sidecar 1' \
			"$(kubectl -n "$name" get deployments -o 'jsonpath={.items[0].spec.template.spec.initContainers[*].name} {.items[0].metadata.generation}')"
	done
	expect 'the manifests came injected by the plugin, and the webhook added the id of the cluster' contains "$(cluster_id)" \
		"$(kubectl -n notes get deployment app -o 'jsonpath={.spec.template.spec.initContainers[*].env[*].value}')"
	expect 'caBundle was written by the webhook, and that is no drift' is Synced "$(status vixens-backup sync.status)"
}

cluster_id() { kubectl get namespace kube-system -o 'jsonpath={.metadata.uid}'; }

what_argo_cd_shows_of_an_app() {
	local tree name
	tell "The resources of the Application notes, by owner:"
	tree=$(tree_of notes)
	indent <<<"$tree"
	expect 'the companions hang below the Deployment' contains '─ Service/app-backup' "$tree"
	# Not the last sync's own list: that of a part of them, by self-heal, may have come after it.
	expect 'the PreSync Job is a hook, and has passed' is 'PreSync 1' \
		"$(kubectl -n notes get job app-presync -o 'jsonpath={.metadata.annotations.argocd\.argoproj\.io/hook} {.status.succeeded}')"
	# What was there before stands beside the app of apps.
	expect 'nothing is called an orphan' is '' "$(for name in vixens-backup "${all_apps[@]}"; do status "$name" 'conditions[*].message'; done)"
}

# tree_of NAMESPACE : what is there, below what owns it.
tree_of() {
	kubectl -n "$1" get deployments,replicasets,pods,cronjobs,jobs,services,persistentvolumeclaims,configmaps,secrets \
		-o 'jsonpath={range .items[*]}{.metadata.uid}{"\t"}{.metadata.ownerReferences[0].uid}{"\t"}{.kind}/{.metadata.name}{"\n"}{end}' |
		awk -F '\t' '
			{ name[$1] = $3; above[$1] = $2; order[++count] = $1 }
			function show(uid, indent, i, child, last) {
				for (i = 1; i <= count; i++) if (above[order[i]] == uid) last = order[i]
				for (i = 1; i <= count; i++) if (above[order[i]] == uid) {
					print indent (order[i] == last ? "└─ " : "├─ ") name[order[i]]
					show(order[i], indent (order[i] == last ? "   " : "│  "))
				}
			}
			END { for (j = 1; j <= count; j++) if (above[order[j]] == "" && name[order[j]] !~ /kube-root-ca/) { print name[order[j]]; show(order[j], "") } }'
}
