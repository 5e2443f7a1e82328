# The tests of tests/node, on the cluster of the demo. Sourced. Needs pods.

app_image=${APP_IMAGE:-vixens-backup.test/app:1}
writer=${CARGO_TARGET_DIR:-$top/target}/debug/examples/writer

# VIXENS_BACKUP_E2E=brief, for CI: of the 24 kinds of app those that have every pair of properties between them, a store
# that is away for three minutes instead of ten, and no figures, which are worth nothing beside other work.
brief() { [[ ${VIXENS_BACKUP_E2E:-} == brief ]]; }
every_pair=(deployment_claim_root_files deployment_emptydir_named_databases deployment_claim_silent_databases
	statefulset_emptydir_root_databases statefulset_claim_named_files statefulset_emptydir_silent_files)

# build_node_tests : keeps where they lie.
build_node_tests() {
	make --no-print-directory -C "$top" tools-e2e 2>&1 | indent
	tell 'compiling the tests that need a node, and their example app'
	cargo build --locked --manifest-path "$top/Cargo.toml" --example writer 2>&1 | tail -n 1 | indent
	keep node-tests "$(cargo test --locked --manifest-path "$top/Cargo.toml" --test node --no-run --message-format=json 2>"$work/logs/node-tests-build.log" |
		sed -n 's/.*"executable":"\([^"]*\/deps\/node-[^"]*\)".*/\1/p')"
}

make_app_image() { "$beds/image" app --binary "$writer" -o "$work/app.tar"; }

# node_tests FLAG… : runs some of them.
node_tests() {
	local settings=("${store_environment[@]}" VIXENS_BACKUP_STORE_SECRET="$work/store-secret.yaml" VIXENS_BACKUP_APP_IMAGE="$app_image"
		VIXENS_BACKUP_MINIO_IMAGE="$minio_image")
	if [[ $cluster == existing ]]; then
		settings+=(VIXENS_BACKUP_STORE_WINDOW="$namespace")
	else
		settings+=(VIXENS_BACKUP_NODE="$root/node" VIXENS_BACKUP_BED="$beds")
	fi
	env "${settings[@]}" "$(kept node-tests)" --show-output "$@"
}

# told_of LOG : an expectation for each test that ended, the words of those that failed, and the figures.
told_of() {
	local name verdict
	while read -r name verdict; do
		name=${name//::/: }
		if [[ $verdict == ok ]]; then
			note ok "${name//_/ }" 'to pass' 'it passed'
		else
			note FAIL "${name//_/ }" 'to pass' "$(grep -A 3 "^thread '.*${name##*: }.*panicked" "$1" | cut -c1-700)"
		fi
	done < <(sed -nE 's/^test ([a-z0-9_:]+) \.\.\. .*(ok|FAILED)$/\1 \2/p' "$1")
	grep -q '^test result: ' "$1" || note FAIL 'the tests run to their end' 'a sum' "$(tail -n 5 "$1")"
	grep -B 2 '^left out: ' "$1" | grep -v '^--$\|^$' | indent || true
	sed -n 's/^figure | /| /p' "$1" | tee -a "$work/figures" | indent
	if grep -q '^test result: FAILED' "$1"; then sed -n '/^failures:$/,$p' "$1" | cut -c1-1000 | head -n 400 | indent; fi
}

# What takes ten minutes goes on beside all else.
start_what_waits_long() {
	if brief; then export VIXENS_BACKUP_MINUTES_AWAY=3; fi
	node_tests ten_minutes >"$work/logs/ten-minutes.log" 2>&1 &
	keep ten-minutes $!
}

a_store_that_is_away_for_ten_minutes() {
	eventually 600 'that test has ended' has_ended "$(kept ten-minutes)"
	told_of "$work/logs/ten-minutes.log"
}

has_ended() { [[ ! -e /proc/$1 || $(sed 's/^.*) //' "/proc/$1/stat" | cut -c1) == Z ]]; }

the_guides_tests_and_bad_days() {
	local app at_once=8 left_out=(--skip alone:: --skip figures:: --skip ten_minutes)
	if brief; then
		at_once=4
		tell "In brief: of the kinds of app, ${#every_pair[@]} that have every pair of properties between them"
		for app in $(node_tests --list guide:: | sed -n 's/^guide::\(.*\): test$/\1/p'); do
			[[ " ${every_pair[*]} " == *" $app "* ]] || left_out+=(--skip "guide::$app")
		done
	fi
	node_tests --test-threads="$at_once" "${left_out[@]}" >"$work/logs/node-tests.log" 2>&1 || true
	told_of "$work/logs/node-tests.log"
}

# Each by itself, so that they are worth something.
the_figures() {
	node_tests --test-threads=1 figures:: >"$work/logs/figures.log" 2>&1 || true
	told_of "$work/logs/figures.log"
}

a_reboot() {
	node_tests --test-threads=1 alone:: >"$work/logs/alone.log" 2>&1 || true
	told_of "$work/logs/alone.log"
}
