# The recipes of this project. CI runs the same ones.
.DEFAULT_GOAL := help
SHELL := bash

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- see it -------------------------------------------------------------------------------

.PHONY: demo
demo: ## from one annotation to a recovered pod, on a real node (as root, or USE_EXISTING_CLUSTER=true)
	@tests/demo/run

.PHONY: demo-shell
demo-shell: ## a shell where the demo's cluster can be reached
	@tests/demo/run shell

.PHONY: demo-down
demo-down: ## remove what the demo has made
	@tests/demo/run down

# --- check it -----------------------------------------------------------------------------

.PHONY: test
test: tools tools-deployment ## unit and property tests, the router, a real API server, real stores, the image's files, cert-manager, Argo CD, Kyverno (LARGE=true: 100,000 files, 5 GiB, a database of 2 GB)
	@status=0; argo_cd=$$(mktemp); \
		$(MAKE) --no-print-directory test-argo-cd >$$argo_cd 2>&1 & beside=$$!; trap "kill $$beside 2>/dev/null" EXIT; \
		for part in test-api test-deployment test-agent test-tier3 test-minio; do $(MAKE) --no-print-directory $$part || status=$$?; done; \
		echo 'Argo CD, which was left alone meanwhile:'; \
		wait $$beside || status=$$?; trap - EXIT; cat $$argo_cd; rm -f $$argo_cd; \
		exit $$status

# Its parts, which CI runs beside each other. What Argo CD is not to do is waited for, five minutes long: that takes no
# machine. Tests of init, the sidecar and the store ([is]*) wait most of the time: four of them at once keep no machine busy.
# Those of tier 3 (t*) wait too, but what they lose counts in seconds; among them are some minutes of torture.
test-parts := test-api test-deployment test-agent test-tier3 test-minio test-argo-cd
.PHONY: $(test-parts)
$(test-parts): tools tools-deployment

with-tools := export PATH=$$(.tools/install --print-path etcd kubernetes rclone litestream minio fake-gcs-server former-release):$$PATH;
large := $(if $(filter true,$(LARGE)),--include-ignored)

test-api:
	@$(with-tools) cargo test --locked --no-fail-fast --lib --bins --test '[!acikmnst]*' --test 'a[!r]*' --test 'arc*' -- $(large)

test-deployment:
	@$(with-tools) cargo test --locked --no-fail-fast --test '[ckm]*'

test-agent:
	@$(with-tools) cargo test --locked --no-fail-fast --test '[is]*' -- --test-threads=4

test-tier3:
	@$(with-tools) cargo test --locked --no-fail-fast --test 't*' -- --test-threads=3 $(large)

# What differs between servers of S3. What a sidecar does without its store needs no second one.
on-minio := --test store_rclone --test init_restore --test sidecar_backup
not-on-minio := --skip nudge --skip credentials --skip accepted --skip takeover --skip settled_start --skip content

test-minio:
	@echo 'The same on MinIO:'; $(with-tools) VIXENS_BACKUP_TEST_STORE=minio \
		cargo test --locked --no-fail-fast $(on-minio) -- --test-threads=4 $(not-on-minio)

test-argo-cd:
	@$(with-tools) cargo test --locked --test argo_cd

.PHONY: torture
torture: tools ## random lives of files, of databases, and beside the former release, seed after seed (MINUTES=60 STORE=s3|minio|sftp|webdav|smb|local SEED=…)
	@$(if $(filter smb,$(STORE)),.tools/need smbd &&) $(if $(filter sftp,$(STORE)),.tools/need sshd &&) $(with-tools) TORTURE_MINUTES=$(or $(MINUTES),60) TORTURE_STORE=$(or $(STORE),s3) TORTURE_SEED=$(SEED) \
		cargo test --locked --no-fail-fast --test torture -- --nocapture --test-threads=3 days

.PHONY: nightly
nightly: tools ## what is left to the night: an hour of torture on each kind of store, kills again and again, what is large
	@status=0; for store in s3 minio sftp webdav smb local; do $(MAKE) --no-print-directory torture STORE=$$store || status=$$?; done; \
		$(MAKE) --no-print-directory nightly-large || status=$$?; exit $$status

.PHONY: nightly-large
nightly-large: tools
	@status=0; for part in test-api test-tier3; do $(MAKE) --no-print-directory $$part LARGE=true || status=$$?; done; \
		for round in 1 2 3 4 5 6; do $(with-tools) cargo test --locked --no-fail-fast --test init_kills --test tier3_kills || status=$$?; done; \
		exit $$status

.PHONY: compile
compile: # what test and, with VIXENS_BACKUP_PROFILE=dev, both e2e run
	@.tools/need cargo cc
	cargo build --locked --bins --examples
	cargo test --locked --no-run --lib --bins --test '*'

.PHONY: e2e
e2e: ## the demo's steps as assertions
	@tests/demo/run assert

.PHONY: e2e-argocd
e2e-argocd: ## Argo CD as the only hand, on a real node: a look at the store before each sync, and both disasters
	@tests/gitops/run

.PHONY: lint
lint: lint-rust lint-dependencies lint-shell lint-workflows lint-manifests ## everything that is checked without running it

.PHONY: lint-rust
lint-rust:
	@.tools/need cargo cc
	cargo fmt --all --check
	cargo clippy --all-targets --locked -- -D warnings
	cargo clippy --test node --locked -- -D warnings

.PHONY: lint-dependencies
lint-dependencies:
	@.tools/lint dependencies

.PHONY: lint-shell
lint-shell:
	@.tools/lint shell

.PHONY: lint-workflows
lint-workflows:
	@.tools/need go
	@.tools/lint workflows

.PHONY: lint-manifests
lint-manifests:
	@.tools/lint manifests

# --- what it takes ------------------------------------------------------------------------

.PHONY: tools
tools: tools-control-plane ## build what the tests need: a control plane, rclone, Litestream, servers of stores (once)
	@.tools/install rclone litestream minio fake-gcs-server former-release

.PHONY: tools-control-plane
tools-control-plane:
	@.tools/need go cc cargo openssl curl
	@.tools/install etcd kubernetes

.PHONY: tools-deployment
tools-deployment: # what is deployed with
	@.tools/need go git
	@.tools/install cert-manager argocd kustomize helm kyverno

.PHONY: tools-image
tools-image:
	@.tools/need go cc cargo
	@.tools/install rclone litestream minio busybox

.PHONY: tools-node
tools-node: tools ## get what the one-node cluster needs besides (once)
	@.tools/need ip iptables mount nsenter unshare
	@.tools/install container-runtime busybox pause coredns local-path-provisioner

.PHONY: tools-e2e
tools-e2e: tools-node # what stands beside us on the node, where nothing can be downloaded
	@.tools/install kyverno

.PHONY: clean-cache
clean-cache: demo-down ## remove what was built and kept outside this folder
	@rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/vixens-backup"

.PHONY: bench
bench: bench-admission bench-controller bench-agent bench-databases ## measure against what one would run instead

.PHONY: bench-admission
bench-admission: ## the same, of the admission server alone
	@benches/admission

.PHONY: bench-controller
bench-controller: ## what keeping the companions of 2,000 workloads takes
	@benches/controller

.PHONY: bench-agent
bench-agent: ## the same, of the agent alone (half an hour)
	@benches/agent

.PHONY: bench-databases
bench-databases: ## the same, of databases at tier 3 alone (five minutes)
	@benches/databases
