# A pod that fits nowhere stays Pending and says why, in upstream's words.
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: nowhere}
spec:
  nodeSelector: {disk: ssd}
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "localhost/copepod/web:1"}]
EOF
soon "0/1 nodes are available: 1 node\(s\) didn't match Pod's node affinity/selector\." k describe pod nowhere
ok '^nowhere +0/1 +Pending' k get pods
ok "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling\." k describe pod nowhere
ok 'node/e2e-node labeled' k label node e2e-node disk=ssd
soon '^nowhere +1/1 +Running' k get pods
ok '' k label node e2e-node disk-
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: huge}
spec:
  containers: [{name: c, image: "localhost/copepod/web:1", resources: {requests: {cpu: "1000"}}}]
EOF
soon '0/1 nodes are available: 1 Insufficient cpu\.' k describe pod huge
ok 'node/e2e-node cordoned' k cordon e2e-node
ok created k run later --image=localhost/copepod/web:1
soon '0/1 nodes are available: 1 node\(s\) were unschedulable\.' k describe pod later
ok 'SchedulingDisabled' k get nodes
ok 'node/e2e-node uncordoned' k uncordon e2e-node
soon '^later +1/1 +Running' k get pods
ok 'tainted' k taint node e2e-node test-$NS=x:NoSchedule
ok created k run tainted --image=localhost/copepod/web:1
soon "0/1 nodes are available: 1 node\(s\) had untolerated taint" k describe pod tainted
ok 'untainted' k taint node e2e-node test-$NS-
soon '^tainted +1/1 +Running' k get pods
