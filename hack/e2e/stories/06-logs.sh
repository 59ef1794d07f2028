# Logs: by container, following, tail, since, timestamps, of the container before.
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: talk}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: a, image: "localhost/copepod/web:1", command: ["sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo err >&2; sleep 3; echo later; sleep 1000"]}
  - {name: b, image: "localhost/copepod/web:1", command: ["sh", "-c", "echo other; sleep 1000"]}
EOF
soon '^talk +2/2' k get pods
soon 'line 5' k logs talk -c a
ok '^err$' k logs talk -c a
ok 'other' k logs talk -c b
lacks 'line 4' k logs talk -c a --tail=1
ok 'Defaulted container "a" out of: a, b' k logs talk
ok '^20[0-9-]+T[0-9:.]+Z line 1$' k logs talk -c a --timestamps
ok 'line 1' k logs talk -c a --since=10m
ok 'line 1' k logs talk -c a --limit-bytes=100
k logs talk -c a -f >/tmp/$NS.follow &
follow=$!
soon '^later$' cat /tmp/$NS.follow
kill $follow
rm -f /tmp/$NS.follow
no 'container nope is not valid for pod talk' k logs talk -c nope
no 'previous terminated container "a" in pod "talk" not found' k logs talk -c a --previous
ok 'other' k logs talk --all-containers
# A log of more than 10 MB is rotated; what is written after that is shown.
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: big}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: "localhost/copepod/web:1", command: ["sh", "-c", "head -c 11000000 /dev/zero | tr '\\0' x | fold -w 1000; i=0; while true; do echo after $i; i=$((i+1)); sleep 1; done"]}
EOF
soon '^big +1/1' k get pods
logs=$DATA/log/pods/${NS}_big_$(value pod/big .metadata.uid)/c
WAIT=60 soon '^0\.log\.20' ls "$logs"
soon '^after ' k logs big --tail=1
at=${OUT#after }
soon "^after $((at + 3))$" k logs big --tail=5
[ "$(stat -c %s "$logs/0.log")" -lt 10485760 ] || fail "not rotated: $(ls -l "$logs")"
