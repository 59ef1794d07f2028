# Several nodes on one machine: a cluster of its own, made, hurt, mended and taken away without a trace. It is the same
# beside whatever cluster the other stories use, so that once is enough.
case $DATA in */embedded) ;; *) exit 0 ;; esac
own=/tmp/$NS stem=e2e-box bridge=cpn$$
web=localhost/copepod/web:1
nodes=198.18.$((RANDOM % 256)) pods=10.$((RANDOM % 90 + 1))
c() { "$COPEPOD" --data-dir "$own" "$@"; }
port() {
  local p
  while p=$((20000 + RANDOM % 10000)) && ss -ltn | grep -q ":$p "; do :; done
  echo $p
}
# What the cluster may have left on the machine. Others are at work here meanwhile: only what bears its names counts.
left() {
  ip -o link show | grep -F "$bridge" || true
  ip route | grep -E "$bridge|^$pods\\.|^$nodes\\." || true
  ip netns list | grep -F "$stem" || true
  iptables-save | grep -E "$bridge|[ /]$pods\\.|[ /]$nodes\\." || true
  find /sys/fs/cgroup -name "$bridge*" 2>/dev/null || true
  grep -lF "$own" /proc/[0-9]*/mountinfo 2>/dev/null || true
  pgrep -af "$own" || true
  ls -d "$own" 2>/dev/null || true
  ls -d /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers /run/containerd /run/netns 2>/dev/null || true
  cat /proc/sys/net/ipv4/ip_forward
}
slay() { # NODE UNIT...: each is killed, and gone
  local unit pid
  for unit in "${@:2}"; do
    pid=$(cut -d' ' -f1 "$own/nodes/$1/run/$unit.pid")
    kill -9 "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
  done
}
finish() { c down --purge >"$WORK_LOG" 2>&1 || cat "$WORK_LOG" >&2; rm -f "$WORK_LOG"; }
WORK_LOG=/tmp/$NS.down
before=$(left)
trap finish EXIT
flags=(--secure-port "$(port)" --controller-manager-port "$(port)" --scheduler-port "$(port)" --bridge "$bridge" --node-name "$stem"
  --node-cidr "$nodes.0/24" --pod-cidr "$pods.0.0/16" --context "$NS" --no-kubeconfig)
[ -z "${COPEPOD_CONTAINERD:-}" ] || flags+=(--containerd "$COPEPOD_CONTAINERD")
for image in $COPEPOD_IMAGES; do flags+=(--load "$image"); done
ok '' c up --nodes 2 "${flags[@]}"
KUBECONFIG_FILE=$own/kubeconfig/admin.kubeconfig NS=default
ok "^$stem-1 +Ready" k get nodes
ok "^$stem-2 +Ready" k get nodes
ok "^$nodes.12\$" k get node $stem-2 -o 'jsonpath={.status.addresses[?(@.type=="InternalIP")].address}'
ok "^node +$stem-2 " c status
no 'chosen once' c up --nodes 3 --no-kubeconfig
ok '' c up --no-kubeconfig

# Into a node: its host name, its network, its exit code.
ok "^$stem-1\$" c node exec $stem-1 -- cat /proc/sys/kernel/hostname
ok "$nodes.11/24" c node exec $stem-1 -- ip -o address
code=0
c node exec $stem-2 -- sh -c 'exit 7' || code=$?
[ $code = 7 ] || fail "the exit code of a command in a node was 7 and became $code"
no "there is no node \"x\"; there are $stem-1, $stem-2" c node exec x -- true

# A pod in each: each reaches the other, and sees its own address.
for n in 1 2; do
  apply <<EOF
apiVersion: v1
kind: Pod
metadata: {name: p$n}
spec:
  nodeName: $stem-$n
  terminationGracePeriodSeconds: 1
  volumes: [{name: tmp, hostPath: {path: /tmp}}]
  containers:
  - name: c
    image: $web
    volumeMounts: [{name: tmp, mountPath: /host-tmp}]
    command: [sh, -c]
    args:
    - |
      mkdir -p /www/cgi-bin
      printf '#!/bin/sh\necho; echo from \$REMOTE_ADDR\n' >/www/cgi-bin/from
      chmod +x /www/cgi-bin/from
      echo p$n on $stem-$n >/host-tmp/who
      echo started
      exec httpd -f -p 8080 -h /www
EOF
done
for n in 1 2; do soon "^p$n +1/1 +Running" k get pods; done
ip1=$(value pod/p1 .status.podIP) ip2=$(value pod/p2 .status.podIP)
[[ $ip1 = $pods.1.* && $ip2 = $pods.2.* ]] || fail "addresses of pods: $ip1 $ip2"
soon "^from .*$ip1\\]?\$" k exec p1 -- wget -qO- "http://$ip2:8080/cgi-bin/from"
soon "^from .*$ip2\\]?\$" k exec p2 -- wget -qO- "http://$ip1:8080/cgi-bin/from"
soon "^from .*$nodes.1\\]?\$" curl -s "http://$ip2:8080/cgi-bin/from"
# The API server is at the same address for all.
ok '' k exec p1 -- sh -c "nc -w 3 $nodes.1 $(sed -n 's/.*"securePort": \([0-9]*\).*/\1/p' "$own/settings.json") </dev/null"
for n in 1 2; do
  ok '^started$' k logs p$n
  ok "^p$n on $stem-$n\$" k exec p$n -- cat /host-tmp/who
  ok "^p$n on $stem-$n\$" c node exec $stem-$n -- cat /tmp/who
done
[ ! -e /tmp/who ] || fail "a hostPath volume below /tmp reached the machine's /tmp"

# Nodes are different users to the API server.
node1=$own/nodes/1/kubeconfig/kubelet.kubeconfig
ok labeled "$KUBECTL" --kubeconfig "$node1" label node $stem-1 own=yes
no "cannot read '$stem-2', only its own Node object" "$KUBECTL" --kubeconfig "$node1" label node $stem-2 own=no

ok created k create deployment spread --image=$web --replicas=4
soon '^spread +4/4' k get deployments
ok '^2$' kk "k get pods -l app=spread -o 'jsonpath={range .items[*]}{.spec.nodeName}{\"\\n\"}{end}' | sort -u | wc -l"

# What dies is started again, and pods do not notice.
state() { k get pod "p$1" -o 'jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount} {.status.podIP}'; }
was=$(state 1)
for unit in kubelet containerd; do
  slay 1 $unit
  no "not running: $stem-1/$unit;" c status
  ok "started $unit of $stem-1" c up --no-kubeconfig
  soon '^p1 +1/1 +Running' k get pods
done
ok "^$was\$" state 1
soon '^started$' k logs p1

# A node that dies comes back as a machine that boots: same pods, new containers; the other node does not notice.
slay 2 node
ok "started node $stem-2" c up --no-kubeconfig
soon ' [1-9][0-9]* ' state 2
soon '^p2 +1/1 +Running' k get pods
soon "^from .*$ip1\\]?\$" kk "k exec p1 -- wget -qO- \"http://\$(k get pod p2 -o 'jsonpath={.status.podIP}'):8080/cgi-bin/from\""
ok "^$was\$" state 1

# A node that falls silent: it is noticed, its pods get no traffic, and those that do not wait for it are replaced elsewhere.
apply <<EOF
apiVersion: apps/v1
kind: Deployment
metadata: {name: mobile}
spec:
  selector: {matchLabels: {app: mobile}}
  template:
    metadata: {labels: {app: mobile}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}]
      affinity:
        nodeAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - {weight: 100, preference: {matchFields: [{key: metadata.name, operator: In, values: [$stem-2]}]}}
      containers: [{name: c, image: $web}]
EOF
taints() { k get node $stem-2 -o 'jsonpath={range .spec.taints[*]}{.key}:{.effect}{"\n"}{end}'; }
soon "^mobile-.* 1/1 +Running .* $stem-2 " k get pods -l app=mobile -o wide
slay 2 kubelet
WAIT=90 soon "^$stem-2 +NotReady" k get nodes
soon '^node.kubernetes.io/unreachable:NoExecute$' taints
ok '^node.kubernetes.io/unreachable:NoSchedule$' taints
soon '^False$' value pod/p2 '.status.conditions[?(@.type=="Ready")].status'
ok 'Kubelet stopped posting node status' k describe node $stem-2
WAIT=60 soon "^mobile-.* 1/1 +Running .* $stem-1 " k get pods -l app=mobile -o wide
ok 'TaintManagerEviction .*Marking for deletion Pod' k get events
ok "started kubelet of $stem-2" c up --no-kubeconfig
soon "^$stem-2 +Ready" k get nodes
soon '^$' taints
soon '^p2 +1/1 +Running' k get pods
soon '^1$' kk 'k get pods -l app=mobile --no-headers | wc -l'

# Another program in the place of a component: everything is there but the component.
ok '' c down
ok 'not waited for' c up --no-kubeconfig --without kubelet
ok '^without +kubelet' c status
lacks "$stem-1/kubelet +[0-9]+ .*MiB" c status
at=$own/nodes/1
c node exec $stem-1 -- "$COPEPOD" kubelet --kubeconfig="$at/kubeconfig/kubelet.kubeconfig" --hostname-override=$stem-1 --node-ip="$nodes.11" \
  --container-runtime-endpoint="unix://$at/containerd.sock" --root-dir="$at/kubelet" --pod-logs-dir="$at/log/pods" --cgroup-root="/$bridge/1" \
  --tls-cert-file="$at/pki/kubelet.crt" --tls-private-key-file="$at/pki/kubelet.key" --client-ca-file="$at/pki/ca.crt" \
  --node-labels=replaced=yes >"$at/log/replaced.log" 2>&1 &
soon "^$stem-1 +Ready" k get nodes -l replaced=yes
soon '^p1 +1/1 +Running' k get pods
soon '^started$' k logs p1

# Nothing is left, even when half of it was killed and a stranger sits in a node.
c node exec $stem-2 -- sleep 1000 &
sleep 0.3
slay 1 containerd
slay 2 node
ok '' c down --purge
trap - EXIT
after=$(left)
[ "$before" = "$after" ] || fail "left by 'down --purge':" "$(diff <(echo "$before") <(echo "$after"))"
