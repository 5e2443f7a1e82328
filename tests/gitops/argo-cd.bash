# Argo CD: its repo-server with the plugin, its application-controller, and what it says. Sourced.

plugin_folder=$root/argo-cd/plugin

# start_argo_cd : as it is installed, with what deploy/argocd adds to it.
start_argo_cd() {
	local state=$root/argo-cd tools
	rm -rf "$state"
	mkdir -p "$state"/{home,sockets,plugin,tmp}
	tools=$("$top/.tools/install" --print-path argocd kustomize helm)
	kubectl apply --server-side -f "${tools%%/bin:*}/files/application-crd.yaml" -f "${tools%%/bin:*}/files/appproject-crd.yaml" >/dev/null
	await 120 "the kinds being known" - kubectl wait --for=condition=Established --timeout=10s \
		customresourcedefinition/applications.argoproj.io customresourcedefinition/appprojects.argoproj.io
	kubectl create namespace argocd >/dev/null
	kubectl apply -f "$top/deploy/argocd/argocd-cm.yaml" -f - >/dev/null <<-YAML
		apiVersion: v1
		kind: ConfigMap
		metadata: {name: argocd-rbac-cm, namespace: argocd, labels: {app.kubernetes.io/part-of: argocd}}
		---
		apiVersion: v1
		kind: Secret
		metadata: {name: argocd-secret, namespace: argocd, labels: {app.kubernetes.io/part-of: argocd}}
		stringData: {server.secretkey: of nobody}
		---
		apiVersion: argoproj.io/v1alpha1
		kind: AppProject
		metadata: {name: default, namespace: argocd}
		spec:
		  sourceRepos: ["*"]
		  destinations: [{namespace: "*", server: "*"}]
		  clusterResourceWhitelist: [{group: "*", kind: "*"}]
		  orphanedResources: {warn: true, ignore: [{kind: Secret, name: rclone-minio-config}, {kind: Secret, name: vixens-backup-certificates}]}
	YAML

	# In a pod the plugin's files lie elsewhere.
	cp "$top"/deploy/argocd/plugin/* "$plugin_folder"
	sed -i "s|/home/argocd/cmp-server/config|$plugin_folder|" "$plugin_folder/plugin.yaml"
	argo_cd redis redis 127.0.0.1:6379
	argo_cd plugin argocd-cmp-server --config-dir-path "$plugin_folder"
	await 120 "the plugin answering" plugin test -S "$state/sockets/vixens-backup.sock"
	argo_cd repo-server argocd-repo-server --address 127.0.0.1 --port 8081 --metrics-port 8084 --disable-tls --redis 127.0.0.1:6379
	await 120 "the repo-server answering" repo-server grep -q 'listening on' "$state/logs/repo-server.log"
	argo_cd application-controller argocd-application-controller --namespace argocd --repo-server-plaintext \
		--repo-server 127.0.0.1:8081 --metrics-port 8082 --redis 127.0.0.1:6379 --app-resync 30 --app-resync-jitter 0 \
		--self-heal-timeout-seconds 2
}

# argo_cd NAME PART ARGUMENTS… : starts a part of it.
argo_cd() {
	local name=$1 part=$2
	shift 2
	start "$name" env ARGOCD_BINARY_NAME="$part" ARGOCD_FAKE_IN_CLUSTER=true ARGOCD_GPG_ENABLED=false \
		ARGOCD_PLUGINSOCKFILEPATH="$state/sockets" ARGOCD_CMP_WORKDIR="$state/tmp" HOME="$state/home" TMPDIR="$state/tmp" VIXENS_BACKUP_IMAGE="$product_image" \
		PATH="${binary%/*}:$tools:$PATH" argocd "$@"
}

# status APPLICATION PATH : what Argo CD says of an Application.
status() { kubectl -n argocd get "application/$1" -o "jsonpath={.status.$2}"; }

applications() {
	kubectl -n argocd get applications -o 'custom-columns=APPLICATION:.metadata.name,SYNC:.status.sync.status,HEALTH:.status.health.status,PHASE:.status.operationState.phase,MESSAGE:.status.operationState.message'
}

# is_well APPLICATION… : applied as it lies in Git now, synced and healthy.
is_well() {
	local name revision seen
	revision=$(in_git rev-parse HEAD)
	seen=$(kubectl -n argocd get applications -o 'jsonpath={range .items[*]}{.metadata.name}{" "}{.status.sync.revision}{" "}{.status.sync.status}{" "}{.status.health.status}{" "}{.status.operationState.phase}{" "}{.status.operationState.message}{"\n"}{end}')
	for name in "$@"; do
		grep -q "^$name $revision Synced Healthy Succeeded " <<<"$seen" || { echo "$seen" && return 1; }
	done
}

# has_git APPLICATION : compares it with what Git has now, as a call from the Git server would.
has_git() { kubectl -n argocd annotate --overwrite "application/$1" argocd.argoproj.io/refresh=normal >/dev/null; }

# says APPLICATION PART : the result of its last operation holds PART: of each object, what became of it.
says() {
	local messages
	messages=$(result_of "$1")
	[[ $messages == *"$2"* ]] || { echo "$messages" && return 1; }
}

result_of() { status "$1" 'operationState.syncResult.resources[?(@.hookPhase=="Failed")].message'; }
