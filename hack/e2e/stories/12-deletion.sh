# Deleting by name, several names, label, all; grace, force; cascading three ways.
for n in a b c d; do ok created k create configmap $n; done
ok '' k label cm c d group=x
ok 'configmap "a" deleted' k delete cm a b
ok 'configmap "d" deleted' k delete cm -l group=x
ok created k run p --image=localhost/copepod/web:1
ok created k create deployment d --image=localhost/copepod/web:1
ok created k create service clusterip s --tcp=80:8080
soon '^d-.* +1/1 +Running' k get pods
ok 'service "s" deleted' k delete all --all --timeout=60s
WAIT=60 soon 'No resources found' k get pods,deployments,replicasets,services
ok created k run f --image=localhost/copepod/web:1
soon '^f +1/1' k get pods
ok 'Immediate deletion does not wait for confirmation' k delete pod f --force --grace-period=0
gone pod f
for how in orphan background foreground; do
  ok created k create deployment $how --image=localhost/copepod/web:1
  soon "^$how-.* +1/1" k get pods
  ok deleted k delete deployment $how --cascade=$how
done
soon '^orphan-' k get replicasets
WAIT=60 soon '^orphan-' k get replicasets
until=$((SECONDS + 40)); while k get rs 2>/dev/null | grep -Eq '^(background|foreground)-'; do [ $SECONDS -lt $until ] || fail "$(k get rs)"; sleep 0.2; done
ok 'deleted' k delete rs --all
