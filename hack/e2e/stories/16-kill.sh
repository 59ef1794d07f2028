# The control plane is killed without warning; pods go on, what was acknowledged is there, nothing is restarted.
ok created k run keep --image=localhost/copepod/web:1
soon '^keep +1/1 +Running +0' k get pods
before=$(k get pod keep -o 'jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt} {.metadata.uid}')
ledger=/tmp/$NS.ledger
: >"$ledger"
touch "$ledger.open"
(
  for i in $(seq 1 400); do
    [ -e "$ledger.open" ] || break
    k create configmap "w$i" -o 'jsonpath={.metadata.name} {.metadata.uid}{"\n"}' 2>/dev/null >>"$ledger" || true
  done
) &
writer=$!
for unit in copepod apiserver controller-manager scheduler kubelet; do
  pid=$(cut -d' ' -f1 "$DATA/run/$unit.pid" 2>/dev/null) || continue
  sleep 0.7
  kill -9 "$pid"
  "$COPEPOD" --data-dir "$DATA" up --no-kubeconfig >/dev/null
done
sleep 1
# The last write has ended when the ledger is read: nobody writes behind the reader's back.
rm "$ledger.open"
wait $writer
[ -s "$ledger" ] || fail 'nothing was acknowledged'
k get configmaps -o 'jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{"\n"}{end}' >"$ledger.found"
lost=$(grep -vxFf "$ledger.found" "$ledger" || true)
[ -z "$lost" ] || fail "acknowledged and lost: $lost"
echo "$(wc -l <"$ledger") acknowledged writes, all found"
soon '^keep +1/1 +Running +0' k get pods
ok "^$before\$" k get pod keep -o 'jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt} {.metadata.uid}'
ok created k run after --image=localhost/copepod/web:1
soon '^after +1/1 +Running' k get pods
rm -f "$ledger" "$ledger.found"
# A kubelet that was taken for dead, as one that was stopped for a while is, says that it lives.
node=$(value pod/keep .spec.nodeName)
ok patched k patch node "$node" --subresource=status -p '{"status":{"conditions":[{"type":"Ready","status":"Unknown"}]}}'
WAIT=8 soon '^True$' value "node/$node" '.status.conditions[?(@.type=="Ready")].status'
WAIT=8 soon '^$' value "node/$node" '.spec.taints'
