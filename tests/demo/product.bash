# The product: built, put into an image, installed. Sourced.

product_image=${VIXENS_BACKUP_IMAGE:-vixens-backup.test/vixens-backup:0.1.0}
example_image=${EXAMPLE_IMAGE:-vixens-backup.test/busybox:1}
minio_image=${MINIO_IMAGE:-vixens-backup.test/minio:1}
# As .tools/build makes it.
profile=release
[[ ${VIXENS_BACKUP_PROFILE:-} != dev ]] || profile=debug
binary=${CARGO_TARGET_DIR:-$top/target}/$profile/vixens-backup

# --- built --------------------------------------------------------------------------------

# build_everything : the program beside the tools, since both take minutes when nothing is cached.
build_everything() {
	local began cargo tools=tools-node
	"$top/.tools/need" go cc cargo openssl diff
	case $cluster in
	control-plane) tools=tools-control-plane ;;
	existing) tools=tools-image ;;
	esac
	began=$(now)
	CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=100 CARGO_TERM_COLOR=never \
		"$top/.tools/build" >"$work/logs/cargo.log" 2>&1 </dev/null &
	cargo=$!
	# shellcheck disable=SC2064 # this very process
	trap "kill $cargo 2>/dev/null || true" EXIT
	make --no-print-directory -C "$top" "$tools" 2>&1 | indent
	[[ ! -e /proc/$cargo ]] || tell 'compiling vixens-backup'
	await_cargo "$cargo"
	trap - EXIT
	tell "$binary: $(mebibytes "$(stat -c %s "$binary")"), after $(seconds_since "$began") s"
}

# await_cargo PID : says how far it is.
await_cargo() {
	local pid=$1 said=$SECONDS far
	while kill -0 "$pid" 2>/dev/null; do
		far=$(tail -c 400 "$work/logs/cargo.log" | tr '\r' '\n' | grep -oE '[0-9]+/[0-9]+' | tail -n 1 || true)
		if [[ -n $erase && -n $far ]]; then
			printf '%s%s%s… compiling: crate %s%s' "$erase" "$margin" "$dim" "${far/\// of }" "$plain"
		elif [[ -n $far ]] && ((SECONDS - said >= 20)); then
			said=$SECONDS
			tell "… compiling: crate ${far/\// of }"
		fi
		sleep 0.2
	done
	printf %s "$erase"
	wait "$pid" && return
	tr '\r' '\n' <"$work/logs/cargo.log" | grep -vE '^ *(Building|Compiling)|^$' | tail -n 40 | indent
	note FAIL 'vixens-backup compiles' '.tools/build succeeds' "its last words are above, all of them in $work/logs/cargo.log"
	exit 1
}

mebibytes() { echo "$(tenths $(($1 * 10 / 1048576))) MiB"; }

# make_image : binary, rclone, Litestream and CA certificates, as a tar.
make_image() {
	show "$beds/image" product --binary "$binary" --name "vixens-backup.test/vixens-backup:0.1.0" -o "$work/vixens-backup.tar"
	keep image-size "$(mebibytes "$(stat -c %s "$work/vixens-backup.tar")")"
	tell "the image: $(kept image-size)"
}

# --- installed ----------------------------------------------------------------------------

# write_overlay : what a user writes who has the image under another name.
write_overlay() {
	local name=${product_image%%@*} pinned
	if [[ $product_image == *@* ]]; then
		pinned="digest: ${product_image#*@}"
	else
		pinned="newTag: \"${name##*:}\""
	fi
	mkdir -p "$work/install"
	cat >"$work/install/kustomization.yaml" <<-YAML
		apiVersion: kustomize.config.k8s.io/v1beta1
		kind: Kustomization
		resources:
		  - $(realpath --relative-to="$work/install" "$top/deploy/base")
		images:
		  - name: vixens-backup
		    newName: ${name%:*}
		    $pinned
	YAML
}

vixens_backup_is_installed_as_a_user_would() {
	write_overlay
	show kubectl apply -k "$work/install"
	must_be_pulled vixens-backup app.kubernetes.io/name=vixens-backup
	require 'the Deployment is rolled out' success kubectl -n vixens-backup rollout status deployment/vixens-backup --timeout=300s
	show kubectl -n vixens-backup get pods
	expect 'two replicas are Ready' is 2 "$(kubectl -n vixens-backup get deployment vixens-backup -o 'jsonpath={.status.readyReplicas}')"
	expect 'they have made certificates of their own' success kubectl -n vixens-backup get secret vixens-backup-certificates
	expect 'the API server was told to trust them, by a field manager of its own' contains 'f:caBundle' \
		"$(kubectl get mutatingwebhookconfiguration vixens-backup --show-managed-fields -o 'jsonpath={.metadata.managedFields[?(@.manager=="vixens-backup-certificates")]}')"
	expect 'installed again, nothing would change' success kubectl diff -k "$work/install"
}

# On the control plane alone: the program beside it, found by its address.
vixens_backup_serves_beside_the_control_plane() {
	local port folder=$root/webhook
	state=$folder
	mkdir -p "$folder"
	reserve_port port
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=vixens-backup \
		-addext subjectAltName=IP:127.0.0.1 -keyout "$folder/tls.key" -out "$folder/tls.crt" 2>/dev/null
	# shellcheck disable=SC2310 # it ends the step by itself
	start vixens-backup "$binary" serve --listen "127.0.0.1:$port" --tls-cert "$folder/tls.crt" --tls-key "$folder/tls.key" \
		--image "$product_image" --without-controller
	keep webhook-port "$port"
	type_in "vixens-backup serve --listen 127.0.0.1:$port --tls-cert … --tls-key … --without-controller"
	awk -v url="https://127.0.0.1:$port/mutate" -v bundle="$(base64 -w0 <"$folder/tls.crt")" '
		/^ *service:$/ { indent = match($0, /[^ ]/); printf "%*surl: %s\n%*scaBundle: %s\n", indent - 1, "", url, indent - 1, "", bundle; next }
		indent && match($0, /[^ ]/) > indent { next }
		{ indent = 0; print }
	' "$top/deploy/base/mutatingwebhookconfiguration.yaml" >"$work/webhook.yaml"
	require 'it answers' success await 60 'the webhook answering' vixens-backup curl -fsS --cacert "$folder/tls.crt" "https://127.0.0.1:$port/readyz"
	show kubectl apply -f "$work/webhook.yaml"
}

end_local_webhook() {
	state=$root/webhook
	[[ ! -d $state/pids ]] || stop 5 vixens-backup
	rm -rf "$state"
}

# must_be_pulled NAMESPACE LABEL : ends the step, and says what to do, when a node has no such image.
must_be_pulled() {
	local reasons
	[[ $cluster == existing ]] || return 0
	for _ in {1..20}; do
		reasons=$(kubectl -n "$1" get pods -l "$2" -o 'jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}')
		[[ $reasons != *Err*Pull* && $reasons != *ImagePullBackOff* && $reasons != *ErrImageNeverPull* ]] || break
		[[ -z $(kubectl -n "$1" get pods -l "$2" -o 'jsonpath={.items[*].status.containerStatuses[*].state.running}') ]] || return 0
		sleep 0.5
	done
	[[ -n $reasons && $reasons == *Pull* ]] || return 0
	say_how_to_load
	note FAIL 'the nodes have the images' 'pods that run' "$reasons"
	exit 1
}

say_how_to_load() {
	tell 'The nodes of this cluster need these images. They lie here, ready to be loaded:'
	local file
	for file in "$work"/*.tar; do tell "  $file"; done
	tell 'kind:       kind load image-archive FILE'
	tell 'k3d:        k3d image import FILE'
	tell 'minikube:   minikube image load FILE'
	tell 'containerd: ctr -n k8s.io images import FILE, on each node'
	tell 'Or push them, and name them: VIXENS_BACKUP_IMAGE, EXAMPLE_IMAGE (any with a shell), MINIO_IMAGE, APP_IMAGE (for make e2e).'
}
