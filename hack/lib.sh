# Shared by the scripts beside it: where things are, what is installed, how progress is told. Sourced, not run.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/copepod
BIN=$CACHE/bin
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
KUBERNETES=$(sed -n 's/.*k8s\.io\/kubernetes v\([0-9.]*\).*/\1/p' "$ROOT/hack/upstream/go.mod" | head -n 1)
START=$(date +%s)

say() { printf '==> [%4d s] %s\n' "$(($(date +%s) - START))" "$*" >&2; }
die() { printf 'Error: %s\n' "$*" >&2; exit 1; }

# as_root COMMAND...: with sudo where that is needed and there.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "run this as root: $*"
  fi
}

# need_packages NAME...: installs those of Debian's packages that are missing.
need_packages() {
  local missing=() p
  for p in "$@"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || die "install the equivalents of: ${missing[*]}"
  say "installing ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# need_node_packages: what a node needs at run time; need_build_packages: what a build needs.
need_node_packages() { need_packages containerd runc containernetworking-plugins iptables nftables iproute2 busybox-static; }
need_build_packages() {
  need_packages gcc libc6-dev make cmake protobuf-compiler libprotobuf-dev ca-certificates git jq
  command -v cargo >/dev/null || die "Rust is missing: https://rustup.rs (1.95 or newer)"
}
need_go() { command -v go >/dev/null || die "Go is missing: https://go.dev/dl (1.26 or newer)"; }

# go_program NAME FOLDER PACKAGE [LDFLAGS]: builds a Go program from the modules of hack/FOLDER into $BIN, once.
go_program() {
  local out=$BIN/$1
  [ -x "$out" ] && return
  need_go
  say "building $1 from Go modules"
  mkdir -p "$BIN"
  # -mod=readonly: what is built is what go.sum names.
  (cd "$ROOT/hack/$2" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w ${4:-}" -o "$out.new" "$3")
  mv "$out.new" "$out"
}

# upstream NAME: a program of Kubernetes itself. kube-proxy needs modules that only the suite's folder names.
upstream() {
  local p=k8s.io/component-base/version v=v$KUBERNETES minor folder=upstream
  [ "$1" != kube-proxy ] || folder=../conformance/suite
  minor=$(cut -d. -f2 <<<"$KUBERNETES")
  go_program "$1-$KUBERNETES" "$folder" "k8s.io/kubernetes/cmd/$1" \
    "-X $p.gitVersion=$v -X $p.gitMajor=1 -X $p.gitMinor=$minor -X $p.gitTreeState=clean"
}

# cargo_deny: the check of licenses, sources and second versions, built from crates.io into the cache, once per version; it runs
# for a second, so its optimization is not worth the minutes.
CARGO_DENY=0.20.2
cargo_deny() {
  local out=$BIN/cargo-deny-$CARGO_DENY work
  [ -x "$out" ] && return
  say "building cargo-deny"
  work=$(mktemp -d)
  cargo install --quiet --debug --locked --no-default-features --version "$CARGO_DENY" --root "$work" --target-dir "$work/target" cargo-deny
  mkdir -p "$BIN"
  mv "$work/bin/cargo-deny" "$out"
  rm -rf "$work"
}

etcd_version() { sed -n 's/.*go\.etcd\.io\/etcd\/server\/v3 v\([0-9.]*\).*/\1/p' "$ROOT/hack/etcd-$1/go.mod" | head -n 1; }
etcd() { go_program "etcd-$(etcd_version "$1")" "etcd-$1" go.etcd.io/etcd/server/v3; }

# conformance_suite: upstream's e2e suite as one test binary, by upstream's version and by what conformance/suite adds; prints
# its path. ginkgo_program: what runs it.
conformance_suite() {
  local dir=$ROOT/conformance/suite out
  out=$BIN/conformance-suite-$KUBERNETES-$(cat "$dir"/go.{mod,sum} "$dir"/*.go | sha256sum | cut -c1-8).test
  if [ ! -x "$out" ]; then
    need_go
    say "building upstream's e2e suite from Go modules (some 12 minutes the first time)"
    mkdir -p "$BIN"
    (cd "$dir" && CGO_ENABLED=0 go test -c -vet=off -mod=readonly -trimpath -ldflags "-s -w" -o "$out.new" .)
    mv "$out.new" "$out"
  fi
  echo "$out"
}
ginkgo_program() {
  local name
  name=ginkgo-$(sed -n 's/.*github\.com\/onsi\/ginkgo\/v2 v\([0-9.]*\).*/\1/p' "$ROOT/conformance/suite/go.mod" | head -n 1)
  go_program "$name" ../conformance/suite github.com/onsi/ginkgo/v2/ginkgo
  echo "$BIN/$name"
}
