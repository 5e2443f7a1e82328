# What lies in Git: an Application for each app, and their manifests. Sourced.

repository=$root/git

in_git() {
	GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git -C "$repository" -c user.name=somebody -c user.email=somebody@example.test "$@"
}

# commit SENTENCE : what lies there now; prints the revision.
commit() {
	in_git add --all
	in_git commit --quiet --message="$1"
	in_git rev-parse HEAD
}

# write_repository : as a user has it, who found this project.
write_repository() {
	rm -rf "$repository"
	mkdir -p "$repository"/{apps,vixens-backup,notes,wiki/{base,home},photos/templates}
	in_git init --quiet --initial-branch=main

	# The product, as the README says: its manifests, and the image by its name.
	cp -r "$top/deploy" "$repository/vixens-backup/deploy"
	cat >"$repository/vixens-backup/kustomization.yaml" <<-YAML
		apiVersion: kustomize.config.k8s.io/v1beta1
		kind: Kustomization
		resources: [deploy/base]
		images: [{name: vixens-backup, newName: ${product_image%:*}, newTag: "${product_image##*:}"}]
	YAML
	sed "s|repoURL: .*|repoURL: file://$repository|; s|targetRevision: .*|targetRevision: main|; s|path: .*|path: vixens-backup|" \
		"$top/deploy/argocd/application.yaml" >"$repository/apps/vixens-backup.yaml"

	# Plain files: with the Secret of the store.
	sed "s|vixens-backup-example:0.1.0|$example_image|; s|^    metadata:\$|&\n      annotations:\n        release: \"1\"|" \
		"$top/deploy/examples/app.yaml" >"$repository/notes/app.yaml"
	cp "$beds/manifests/rclone-minio-config.yaml" "$repository/notes/"
	application notes notes '' ''

	# A kustomization: its annotation lies in a base outside its path.
	cp "$repository/notes/app.yaml" "$repository/wiki/base/"
	echo 'resources: [app.yaml]' >"$repository/wiki/base/kustomization.yaml"
	printf 'resources: [../base]\nnamePrefix: wiki-\n' >"$repository/wiki/home/kustomization.yaml"
	application wiki wiki/home ServerSideApply=true ServerSideDiff=true,IncludeMutationWebhook=true

	# A chart: one app on an emptyDir.
	printf 'apiVersion: v2\nname: photos\nversion: 0.1.0\n' >"$repository/photos/Chart.yaml"
	sed "s|vixens-backup-example:0.1.0|$example_image|; s|app-emptydir|{{ .Release.Name }}|g" "$top/deploy/examples/app-emptydir.yaml" \
		>"$repository/photos/templates/app.yaml"
	cp "$beds/manifests/rclone-minio-config.yaml" "$repository/photos/templates/"
	application photos photos '' ServerSideDiff=true

	commit 'A cluster' >/dev/null
}

# application NAME PATH SYNC_OPTION COMPARE_OPTIONS : the Application, in the app of apps.
application() {
	cat >"$repository/apps/$1.yaml" <<-YAML
		apiVersion: argoproj.io/v1alpha1
		kind: Application
		metadata:
		  name: $1
		  namespace: argocd
		  annotations:
		    argocd.argoproj.io/compare-options: "$4"
		spec:
		  project: default
		  source: {repoURL: "file://$repository", targetRevision: main, path: $2}
		  destination: {server: https://kubernetes.default.svc, namespace: $1}
		  syncPolicy:
		    automated: {prune: true, selfHeal: true}
		    retry: {limit: -1, backoff: {duration: 5s, factor: 1}}
		    syncOptions: [CreateNamespace=true${3:+, $3}]
	YAML
}

# release NUMBER : a change of the notes in Git, that rolls their app.
release() {
	sed -i "s|release: .*|release: \"$1\"|" "$repository/notes/app.yaml"
	commit "Release $1" >/dev/null
}
