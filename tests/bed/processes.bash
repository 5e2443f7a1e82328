# Starts, awaits and ends the bed's long-running processes. Sourced.
#
# A state folder ($state) holds, for each process, pids/NAME ("pid start-time") and
# logs/NAME.log. The start time tells our process from a later one that was given the
# same number, so nothing but what was started here is ever signalled.

say() { echo "$bed: $*" >&2; }
fail() { say "$*"; exit 1; }

start_time_of() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# start NAME COMMAND… : in the background, in a session of its own, deaf to this terminal.
start() {
	local name=$1 pid
	shift
	mkdir -p "$state/pids" "$state/logs"
	setsid "$@" >"$state/logs/$name.log" 2>&1 </dev/null &
	pid=$!
	echo "$pid $(start_time_of "$pid")" >"$state/pids/$name"
	disown "$pid"
}

# pid_of NAME : prints the number of a process that we started and that still runs.
pid_of() {
	local pid began
	{ read -r pid began <"$state/pids/$1"; } 2>/dev/null || return 1
	[[ -n $began && $(start_time_of "$pid") == "$began" ]] || return 1
	# A zombie has ended; only its parent has not looked yet.
	[[ $(sed 's/^.*) //' "/proc/$pid/stat" 2>/dev/null | cut -c1) != Z ]] || return 1
	echo "$pid"
}

# stop SECONDS NAME… : TERM to all of them, KILL to what is left after SECONDS; returns when they are gone.
stop() {
	local patience=$1 name pid deadline signal
	shift
	for signal in TERM KILL; do
		for name in "$@"; do
			pid=$(pid_of "$name") && kill -s "$signal" "$pid" 2>/dev/null || true
		done
		deadline=$((${EPOCHREALTIME/[.,]/} + patience * 1000000))
		for name in "$@"; do
			while pid_of "$name" >/dev/null && ((${EPOCHREALTIME/[.,]/} < deadline)); do sleep 0.05; done
		done
		patience=20
	done
	for name in "$@"; do
		pid=$(pid_of "$name") && fail "$name (pid $pid) does not end, even by SIGKILL: look at 'cat /proc/$pid/stack'"
		rm -f "$state/pids/$name"
	done
}

# await SECONDS WHAT NAME COMMAND… : until COMMAND succeeds. Fails at once, with the
# end of its log, when the process NAME (or "-" for none) has ended.
await() {
	local patience=$1 what=$2 name=$3 deadline=$((SECONDS + $1))
	shift 3
	until "$@" >/dev/null 2>&1; do
		if [[ $name != - ]] && ! pid_of "$name" >/dev/null; then
			tail -n 5 "$state/logs/$name.log" >&2
			fail "$name ended before $what; its last lines are above, all of them in $state/logs/$name.log"
		fi
		if ((SECONDS >= deadline)); then
			[[ $name == - ]] || tail -n 5 "$state/logs/$name.log" >&2
			fail "waited $patience s in vain for: $what. The logs are in $state/logs"
		fi
		sleep 0.1
	done
}

# reserve_port VARIABLE : a free port of this machine. The lock that keeps other beds
# off it is inherited by what is started next, and lasts as long as that runs.
reserve_port() {
	local folder=${TMPDIR:-/tmp}/vixens-backup-ports-$UID number lock
	mkdir -p "$folder"
	for _ in {1..200}; do
		# Below the range from which Linux takes the ports of outgoing connections.
		number=$((20000 + RANDOM % 12000))
		grep -qi "$(printf ':%04X 00000000' "$number")" /proc/net/tcp /proc/net/tcp6 2>/dev/null && continue
		exec {lock}>"$folder/$number"
		if flock -n "$lock"; then
			printf -v "$1" %s "$number"
			return
		fi
		exec {lock}>&-
	done
	fail "found no free port between 20000 and 32000 on this machine"
}
