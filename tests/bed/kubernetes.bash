# What the control plane and the node have in common: the cluster's certificates and
# kubeconfigs, and how etcd, kube-apiserver and kube-controller-manager are started.
# Sourced after processes.bash; $state is the state folder, $binaries the folder(s) of
# the programs.

services=10.96.0.0/16
pods=10.244.0.0/16

# make_certificates IP… : the cluster's authority, and what it has signed.
make_certificates() {
	local folder=$state/pki names ip
	names=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
	for ip in 127.0.0.1 10.96.0.1 "$@"; do names+=,IP:$ip; done
	mkdir -p "$folder"
	(
		cd "$folder"
		key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null; }
		signed() {
			local name=$1 subject=$2 extensions=$3
			key "$name"
			openssl req -new -key "$name.key" -subj "$subject" |
				openssl x509 -req -days 3650 -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 8)" -out "$name.crt" \
					-extfile <(printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=digitalSignature\n%s\n' "$extensions") 2>/dev/null
		}
		umask 077
		key ca
		openssl req -x509 -new -key ca.key -days 3650 -subj /CN=vixens-backup-bed -out ca.crt \
			-addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
		signed apiserver /CN=kube-apiserver "$(printf 'extendedKeyUsage=serverAuth\nsubjectAltName=%s' "$names")"
		signed apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client extendedKeyUsage=clientAuth
		key service-accounts
		openssl pkey -in service-accounts.key -pubout -out service-accounts.pub
	)
}

# make_kubeconfigs SERVER "FILE USER [GROUP]"… : one for each user, with a token of its
# own; the API server learns all of them from pki/tokens.csv.
make_kubeconfigs() {
	local server=$1 line file user group token authority
	shift
	authority=$(base64 -w0 <"$state/pki/ca.crt")
	(
		umask 077
		: >"$state/pki/tokens.csv"
		for line in "$@"; do
			read -r file user group <<<"$line"
			token=$(openssl rand -hex 16)
			echo "$token,$user,$user${group:+,$group}" >>"$state/pki/tokens.csv"
			cat >"$state/$file" <<-YAML
				apiVersion: v1
				kind: Config
				current-context: vixens-backup-bed
				contexts: [{name: vixens-backup-bed, context: {cluster: vixens-backup-bed, user: $user}}]
				clusters: [{name: vixens-backup-bed, cluster: {server: $server, certificate-authority-data: $authority}}]
				users: [{name: $user, user: {token: $token}}]
			YAML
		done
	)
}

# start_etcd ADDRESS CLIENT_PORT PEER_PORT
start_etcd() {
	start etcd "${inside[@]}" etcd --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
		--listen-client-urls "http://$1:$2" --advertise-client-urls "http://$1:$2" \
		--listen-peer-urls "http://$1:$3" --initial-advertise-peer-urls "http://$1:$3" \
		--initial-cluster "default=http://$1:$3"
}

# start_apiserver ADDRESS PORT ETCD FLAG…
start_apiserver() {
	local address=$1 port=$2 etcd=$3
	shift 3
	# enable-aggregator-routing: Services of webhooks are dialled at their endpoints, so
	# the API server needs no kube-proxy of its own.
	start kube-apiserver "${inside[@]}" kube-apiserver \
		--etcd-servers="$etcd" --bind-address="$address" --advertise-address="$address" --secure-port="$port" \
		--cert-dir="$state/pki" --tls-cert-file="$state/pki/apiserver.crt" --tls-private-key-file="$state/pki/apiserver.key" \
		--client-ca-file="$state/pki/ca.crt" --token-auth-file="$state/pki/tokens.csv" \
		--kubelet-client-certificate="$state/pki/apiserver-kubelet-client.crt" \
		--kubelet-client-key="$state/pki/apiserver-kubelet-client.key" \
		--kubelet-preferred-address-types=InternalIP \
		--service-account-issuer=https://kubernetes.default.svc.cluster.local \
		--service-account-key-file="$state/pki/service-accounts.pub" \
		--service-account-signing-key-file="$state/pki/service-accounts.key" \
		--service-cluster-ip-range="$services" --authorization-mode=Node,RBAC --allow-privileged=true \
		--enable-aggregator-routing=true --profiling=false --v=1 "$@"
}

# start_controller_manager FLAG…
start_controller_manager() {
	# kube-api-qps: at the usual 20 requests a second its forty ServiceAccounts alone take 4 s.
	start kube-controller-manager "${inside[@]}" kube-controller-manager \
		--kubeconfig="$state/controller-manager.kubeconfig" --leader-elect=false --use-service-account-credentials=true \
		--kube-api-qps=1000 --kube-api-burst=2000 \
		--root-ca-file="$state/pki/ca.crt" --service-account-private-key-file="$state/pki/service-accounts.key" \
		--cluster-signing-cert-file="$state/pki/ca.crt" --cluster-signing-key-file="$state/pki/ca.key" \
		--flex-volume-plugin-dir="$state/volume-plugins" --profiling=false --v=1 "$@"
}

admin() { "${inside[@]}" kubectl --kubeconfig "$state/kubeconfig" "$@"; }
