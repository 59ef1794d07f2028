# A node is drained: what keeps it from being, what is moved, what stays; then it is used again.
trap 'k uncordon e2e-node >/dev/null 2>&1' EXIT
drain() { k drain e2e-node --pod-selector="story=$NS" "$@"; }
apply <<EOF
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, story: $NS}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: "localhost/copepod/web:1"}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere, story: $NS}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: "localhost/copepod/web:1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {story: $NS}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "localhost/copepod/web:1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: stores, labels: {story: $NS}}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, emptyDir: {}}]
  containers: [{name: c, image: "localhost/copepod/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: budget}
spec:
  minAvailable: 2
  selector: {matchLabels: {app: web}}
EOF
soon '^web +2/2' k get deployments
soon '^everywhere +1 +1 +1' k get daemonsets
soon '^alone +1/1' k get pods
soon '^stores +1/1' k get pods
soon '^budget +2 +N/A +0 ' k get poddisruptionbudgets
no 'cannot delete DaemonSet-managed Pods \(use --ignore-daemonsets to ignore\): '"$NS"'/everywhere-' drain
ok 'cannot delete Pods that declare no controller \(use --force to override\): '"$NS/alone" printf '%s' "$OUT"
ok 'cannot delete Pods with local storage \(use --delete-emptydir-data to override\): '"$NS/stores" printf '%s' "$OUT"
# It stays cordoned, and nothing was taken from it.
ok '^e2e-node +Ready,SchedulingDisabled' k get nodes
ok '^alone +1/1' k get pods
# The budget allows nothing: the pods without one go, the others are tried again and again.
no "Cannot evict pod as it would violate the pod's disruption budget\." drain --ignore-daemonsets --force --delete-emptydir-data --timeout=6s
said=$OUT
for line in "evicting pod $NS/web-" "ignoring DaemonSet-managed Pods: $NS/everywhere-" "deleting Pods that declare no controller: $NS/alone" 'global timeout reached: 6s'; do
  ok "$line" printf '%s' "$said"
done
ok '^web +2/2' k get deployments
gone pod alone
gone pod stores
ok 'patched' k patch poddisruptionbudget budget -p '{"spec":{"minAvailable":0}}'
soon '^budget +0 +N/A +2 ' k get poddisruptionbudgets
ok 'node/e2e-node drained \(server dry run\)' drain --ignore-daemonsets --dry-run=server
ok '^web +2/2' k get deployments
ok 'node/e2e-node drained' drain --ignore-daemonsets --timeout=60s
# What is managed has come again and finds no node; the daemon's pod was left alone.
soon '^web +0/2' k get deployments
soon '^web-[a-z0-9-]+ +0/1 +Pending' k get pods
ok '^everywhere-[a-z0-9]+ +1/1 +Running +0' k get pods
ok 'node/e2e-node already cordoned' k cordon e2e-node
ok 'node/e2e-node uncordoned' k uncordon e2e-node
soon '^web +2/2' k get deployments
