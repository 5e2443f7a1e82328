# The store of the example app, and what is made in a cluster that is somebody's. Sourced.

# use_store : sets $store_environment, by which rclone reaches the store as "minio", and writes the Secret for apps.
use_store() {
	sed "s|//minio.minio.svc|//minio.$(store_namespace).svc|" "$beds/manifests/rclone-minio-config.yaml" >"$work/store-secret.yaml"
	mapfile -t store_environment < <(sed -n 's/^  \(RCLONE_CONFIG_[A-Z_]*\): /\1=/p' "$work/store-secret.yaml")
}

# On a node of our own MinIO is there already.
store_namespace() { if [[ $cluster == existing ]]; then echo "$namespace"; else echo minio; fi; }

# must_not_be_in_use : a cluster that has vixens-backup, or our namespace, is left alone.
must_not_be_in_use() {
	command -v kubectl >/dev/null || fail "USE_EXISTING_CLUSTER is true, and there is no kubectl in PATH: install it"
	kubectl get --request-timeout=10s --raw /readyz >/dev/null ||
		fail "USE_EXISTING_CLUSTER is true, and the cluster of KUBECONFIG (${KUBECONFIG:-~/.kube/config}) does not answer"
	[[ -z $(kubectl get mutatingwebhookconfiguration vixens-backup -o name --ignore-not-found) ]] ||
		fail "vixens-backup is installed in the cluster of context '$(kubectl config current-context)': the demo installs its own, and does not touch yours. Choose another cluster"
	[[ -z $(kubectl get namespace "$namespace" -o name --ignore-not-found) ]] ||
		fail "the cluster of context '$(kubectl config current-context)' has a namespace $namespace: remove it ('make demo-down' does, when the demo made it)"
}

# start_in_existing : the images, named and ready to be loaded; a store in the demo's namespace.
start_in_existing() {
	must_not_be_in_use
	"$beds/image" busybox -o "$work/busybox.tar"
	"$beds/image" minio -o "$work/minio.tar"
	if [[ -z ${VIXENS_BACKUP_IMAGE:-} ]]; then say_how_to_load; fi
	kubectl config view --raw --flatten --minify >"$work/kubeconfig"
	chmod 600 "$work/kubeconfig"
	show kubectl create namespace "$namespace"
	# What it stores is gone with its pod, and with the demo.
	sed -e "s|^  namespace: minio$|  namespace: $namespace|; s|hostPath: {.*}|emptyDir: {}|; s|imagePullPolicy: Never|imagePullPolicy: IfNotPresent|" \
		-e "s|vixens-backup.test/minio:1|$minio_image|; s|^        runAsGroup: 65532|&\n        fsGroup: 65532|" "$beds/manifests/minio.yaml" |
		awk 'BEGIN { RS = ORS = "---\n" } !/kind: Namespace/' | kubectl apply -f - | indent
	use_store
	kubectl -n "$namespace" apply -f "$work/store-secret.yaml" | indent
	kubectl apply -f - <<-YAML | indent
		# Through it the demo looks into the bucket.
		apiVersion: v1
		kind: Pod
		metadata: {name: store-window, namespace: $namespace, labels: {app: store-window}}
		spec:
		  terminationGracePeriodSeconds: 1
		  containers:
		    - name: rclone
		      image: $product_image
		      imagePullPolicy: IfNotPresent
		      command: [rclone, rcd, --rc-no-auth, --rc-addr=127.0.0.1:5572]
		      envFrom: [{secretRef: {name: rclone-minio-config}}]
	YAML
	must_be_pulled "$namespace" 'app in (minio,store-window)'
	require 'the store is there' success kubectl -n "$namespace" rollout status deployment/minio --timeout=300s
	require 'the way to look into it is there' success kubectl -n "$namespace" wait --for=condition=Ready pod/store-window --timeout=300s
	bucket mkdir minio:vixens-backups
}

remove_from_existing() {
	[[ -s $work/kubeconfig ]] || return 0
	local KUBECONFIG=$work/kubeconfig
	export KUBECONFIG
	kubectl delete --ignore-not-found mutatingwebhookconfiguration vixens-backup
	kubectl delete --ignore-not-found namespace "$namespace"
	[[ ! -e $work/install/kustomization.yaml ]] || kubectl delete --ignore-not-found -k "$work/install"
}
