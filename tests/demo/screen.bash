# What a person sees, and what a machine reads. Sourced.
#
# A step is a function whose name is a sentence: the name is its heading. In a step, `expect` says what
# must be so. As a demo that reads as a story; as a test ($assert is yes) each expectation is a line of
# its own, "ok" or "FAIL" with what was expected and what was seen, and all else begins with "#".
#
# Kept in $work, because steps run in processes of their own: results ("ok" or "FAIL" a line), steps
# (seconds, verdict and heading a line), values/NAME.

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
	bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' blue=$'\e[34m' plain=$'\e[0m' erase=$'\r\e[K'
else
	bold='' dim='' red='' green='' yellow='' blue='' plain='' erase=''
fi
margin='    ' patience=1 leisure=1 pause=0.2
# A test waits for what a person would have given up: a busy machine is no fault.
[[ -z ${assert:-} ]] || margin='#   ' patience=5
# Beside other work, how long something takes is worth little, and who looks often keeps the others waiting.
[[ ${VIXENS_BACKUP_E2E:-} != brief ]] || leisure=6 pause=1

# --- time ---------------------------------------------------------------------------------

# now : microseconds.
now() { echo "${EPOCHREALTIME/[.,]/}"; }

# seconds_since MOMENT : with one decimal.
seconds_since() { tenths $((($(now) - $1) / 100000)); }

tenths() { echo "$(($1 / 10)).$(($1 % 10))"; }

# --- the story ----------------------------------------------------------------------------

heading() { printf '\n%s%s%s%s\n' "${assert:+# }" "$bold$blue" "$1" "$plain"; }

# tell TEXT : a sentence of the story.
tell() { printf '%s%s\n' "$margin" "$*"; }

indent() { sed -u "s/^/$margin/"; }

# show COMMAND… : runs it as a person would see it.
show() {
	local words
	words=$(printf '%q ' "$@")
	type_in "${words% }"
	"$@" 2>&1 | indent
}

# type_in TEXT : a command line, without the folders that only this run has.
type_in() {
	local text=${*//"$work/"/}
	printf '%s%s$ %s%s\n' "$margin" "$dim" "${text//"$top/"/}" "$plain"
}

# coloured_diff : colours what comes in, a unified diff.
coloured_diff() {
	sed -e "s/^+.*/$green&$plain/; s/^-.*/$red&$plain/; s/^@@.*/$dim&$plain/" | indent
}

# keep NAME VALUE, kept NAME : for later steps.
keep() { printf '%s\n' "$2" >"$work/values/$1"; }
kept() { cat "$work/values/$1"; }

# --- what must be so ----------------------------------------------------------------------

# expect SENTENCE is EXPECTED SEEN
# expect SENTENCE contains PART TEXT
# expect SENTENCE lacks PART TEXT
# expect SENTENCE within LIMIT SECONDS
# expect SENTENCE success COMMAND…
# expect SENTENCE denial PART COMMAND…      (it fails and says PART; both are shown)
expect() {
	local sentence=$1 how=$2 part wanted seen verdict=FAIL code=0
	shift 2
	case $how in
	is)
		wanted=$1 seen=$2
		[[ $seen != "$wanted" ]] || verdict=ok
		;;
	contains)
		wanted="'$1' in it" seen=$2
		[[ $seen != *"$1"* ]] || verdict=ok
		;;
	lacks)
		wanted="no '$1' in it" seen=$2
		[[ $seen == *"$1"* ]] || verdict=ok
		;;
	within)
		wanted="at most $(($1 * leisure)) s" seen="$2 s"
		((10#${2/./} > $1 * leisure * 10)) || verdict=ok
		;;
	success)
		wanted='exit code 0'
		seen=$("$@" 2>&1) || code=$?
		((code)) || verdict=ok
		seen="exit code $code${seen:+: $seen}"
		;;
	denial)
		part=$1 wanted="an exit code other than 0, and '$1'"
		shift
		type_in "$*"
		seen=$("$@" 2>&1) || code=$?
		indent <<<"$yellow${seen//$'\n'/$plain$'\n'$yellow}$plain"
		[[ $code == 0 || $seen != *"$part"* ]] || verdict=ok
		seen="exit code $code${seen:+: $seen}"
		;;
	esac
	note "$verdict" "$sentence" "$wanted" "$seen"
}

# require … : like expect, and ends the step when it is not so.
require() {
	expect "$@"
	[[ $(tail -n 1 "$work/results") == ok ]] || exit 1
}

# eventually SECONDS SENTENCE COMMAND… : waits until COMMAND succeeds, and ends the step when it does not in
# time (as a test, five times as long). Keeps how long that took as the value "took".
eventually() {
	local limit=$(($1 * patience)) sentence=$2 began said waited seen
	shift 2
	began=$(now) said=$SECONDS
	until seen=$("$@" 2>&1); do
		waited=$(seconds_since "$began")
		if ((10#${waited/./} >= limit * 10)); then
			printf %s "$erase"
			note FAIL "$sentence" "so within $limit s" "not after $waited s${seen:+; last: $seen}"
			exit 1
		fi
		if [[ -n $erase ]]; then
			printf '%s%s%s… %s s%s' "$erase" "$margin$dim" "$sentence" "${waited%.*}" "$plain"
		elif ((SECONDS - said >= 15)); then
			said=$SECONDS
			tell "… waiting: $sentence (${waited%.*} s so far)"
		fi
		sleep "$pause"
	done
	printf %s "$erase"
	keep took "$(seconds_since "$began")"
	note ok "$sentence" "so within $limit s" "after $(kept took) s"
}

# note VERDICT SENTENCE EXPECTED SEEN
note() {
	local verdict=$1 sentence=$2 wanted=$3 seen=$4
	echo "$verdict" >>"$work/results"
	if [[ -n ${assert:-} ]]; then
		# One line each, however long what was seen is.
		wanted=${wanted:-nothing} seen=${seen:-nothing}
		wanted=${wanted//$'\n'/ ⏎ } seen=${seen//$'\n'/ ⏎ }
		if [[ $verdict == ok ]]; then wanted=${wanted:0:160} seen=${seen:0:160}; fi
		printf '%s %d - %s (expected %s; saw %s)\n' "$verdict" "$(wc -l <"$work/results")" "$sentence" "${wanted:0:2000}" "${seen:0:2000}"
	elif [[ $verdict == ok ]]; then
		printf '%s%s✓%s %s%s\n' "$margin" "$green" "$plain" "$sentence" "$([[ $wanted == *' s' ]] && echo " $dim($seen)$plain")"
	else
		printf '%s%s✗ %s%s\n%s  expected: %s\n%s  saw:      %s\n' "$margin" "$red" "$sentence" "$plain" "$margin" "$wanted" "$margin" "${seen//$'\n'/$'\n'"$margin"            }"
	fi
}

passed() { grep -cx ok "$work/results" || true; }
failed() { grep -cx FAIL "$work/results" || true; }

# --- steps --------------------------------------------------------------------------------

# step NAME : runs the function NAME under its heading; $ended is its exit code. When an expectation was not met, the
# command $explain shows what there is to see. To be called on a line of its
# own: after "if", or before "||", bash would let it go on after a failed command.
step() {
	local name=$1 title began before verdict=done
	title=${name//_/ }
	title=${title^}
	before=$(failed)
	began=$(now)
	heading "$title"
	set +e
	(
		set -eE
		level=$BASH_SUBSHELL
		# shellcheck disable=SC2154 # of bash
		trap '[[ $BASH_SUBSHELL != "$level" ]] || note FAIL "every command of this step succeeds" "exit code 0" "a failure of: $BASH_COMMAND"' ERR
		"$name"
	)
	ended=$?
	set -e
	if ((ended)) && (($(failed) == before)); then
		note FAIL "this step runs to its end" "exit code 0" "exit code $ended"
	fi
	if (($(failed) > before)); then
		verdict=FAILED
		${explain:-true}
	fi
	printf '%s\t%s\t%s\n' "$(seconds_since "$began")" "$verdict" "$title" >>"$work/steps"
}

# must NAME : a step without which there is no point in going on.
must() {
	step "$1"
	((ended)) || return 0
	tell "${red}The steps after this one need it, and are left out.$plain"
	exit 1
}
