# What a story is told with. Sourced by hack/e2e/run for each story.
#
#   k ARGS...                 kubectl against the cluster under test, in the story's own namespace
#   ok 'text' COMMAND...      COMMAND succeeds and prints a line that matches the extended regular expression
#   no 'text' COMMAND...      COMMAND fails and prints such a line (standard error counts)
#   lacks 'text' COMMAND...   COMMAND succeeds and prints no such line
#   soon 'text' COMMAND...    as ok, tried again for up to half a minute
#   apply <<EOF               kubectl apply of a manifest
#   conformance PROGRAM...    PROGRAM succeeds on this cluster; its closing line is shown where the story is told
#
# The first that does not hold ends the story: it has failed, and what was printed is shown.

k() { "$KUBECTL" --kubeconfig "$KUBECONFIG_FILE" --namespace "$NS" "$@"; }

fail() {
  printf '    %s\n' "$@" >&2
  exit 1
}

_check() { # MODE PATTERN COMMAND...
  local mode=$1 pattern=$2 code=0
  shift 2
  OUT=$("$@" 2>&1) || code=$?
  case $mode in
    ok) [ $code = 0 ] && grep -Eq -- "$pattern" <<<"$OUT" ;;
    no) [ $code != 0 ] && grep -Eq -- "$pattern" <<<"$OUT" ;;
    lacks) [ $code = 0 ] && ! grep -Eq -- "$pattern" <<<"$OUT" ;;
  esac
}

_or_fail() { # MODE PATTERN COMMAND...
  _check "$@" && return
  fail "$(basename "${BASH_SOURCE[2]}"):${BASH_LINENO[1]}: wanted ($1): $2" "from: ${*:3}" "got: ${OUT:0:2000}"
}
ok() { _or_fail ok "$@"; }
no() { _or_fail no "$@"; }
lacks() { _or_fail lacks "$@"; }

soon() {
  local until=$((SECONDS + ${WAIT:-30}))
  while ! _check ok "$@"; do
    [ $SECONDS -lt $until ] || fail "$(basename "${BASH_SOURCE[1]}"):${BASH_LINENO[0]}: wanted soon: $1" \
      "from: ${*:2}" "got: ${OUT:0:2000}" "$(k get pods,events -o wide 2>&1 | tail -n 25)"
    sleep 0.1
  done
}

gone() { # KIND NAME: is gone soon
  local until=$((SECONDS + ${WAIT:-30}))
  while k get "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || fail "still there: $*" "$(k get "$@" -o yaml 2>&1 | tail -n 40)"
    sleep 0.1
  done
}

conformance() {
  local code=0 log=$DATA/conformance.log
  KUBECONFIG=$KUBECONFIG_FILE "$@" >"$log" 2>&1 || code=$?
  if [ $code != 0 ]; then
    grep -E -A12 -- '--- FAIL|_test.go:[0-9]+:|^FAILED|^Error|^panic' "$log" | cut -c1-600 | head -n 50 >&2
  fi
  grep -E '[0-9]+ passed, [0-9]+ failed' "$log" | sed 's/^/told: /'
  [ $code = 0 ] || fail "$1 failed"
}
apply() { ok '(created|configured|unchanged|serverside-applied)' k apply -f -; }
value() { k get "$1" -o "jsonpath={$2}"; }
# kk 'SHELL': a pipeline that uses k.
kk() { timeout 60 bash -c "set -o pipefail; KUBECTL='$KUBECTL' KUBECONFIG_FILE='$KUBECONFIG_FILE' NS='$NS'; $(declare -f k); $1"; }
