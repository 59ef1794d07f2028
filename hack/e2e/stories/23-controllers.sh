# Controllers: each acts as a service account of its own, and upstream's roles are enough for all that they do.
declare -A log_bytes
for log in "$DATA"/log/*.log; do log_bytes[$log]=$(stat -c %s "$log"); done
apply <<EOF
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: every}
spec:
  selector: {matchLabels: {app: every}}
  updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: every}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: localhost/copepod/web:1}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: localhost/copepod/web:1}]}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 1
  selector: {app: old}
  template:
    metadata: {labels: {app: old}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: localhost/copepod/web:1}]}
---
apiVersion: v1
kind: Service
metadata: {name: every}
spec: {selector: {app: every}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: db}
spec: {minAvailable: 1, selector: {matchLabels: {app: db}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: few}
spec: {hard: {pods: "20", count/jobs.batch: "20", configmaps: "9"}}
EOF
WAIT=60 soon '^every +1 +1 +1 +1 +1' k get daemonsets
WAIT=60 soon '^db +2/2' k get statefulsets
soon '^old +1 +1 +1' k get replicationcontrollers
soon ':8080' k get endpoints every
soon '1 +N/A +1 ' k get pdb db
soon 'pods +[1-9][0-9]* +20' k describe quota few
# What is deleted is given back, whatever it was.
soon '^configmaps +1 +9' k describe quota few
ok created k create configmap counted
soon '^configmaps +2 +9' k describe quota few
ok deleted k delete configmap counted
soon '^configmaps +1 +9' k describe quota few
# An update with surge: the new pod first, then the old one goes.
ok 'env updated' k set env daemonset/every VERSION=2
WAIT=60 ok 'successfully rolled out' k rollout status daemonset/every --timeout=60s
ok 'scaled' k scale statefulset db --replicas=1
gone pod db-1
# A slice follows its pods; the root certificate is mended.
ok 'labeled' k label service every tier=front
soon 'tier=front' k get endpointslices --show-labels
ok 'patched' k patch configmap kube-root-ca.crt --type=merge -p '{"data":{"extra":"x"}}'
soon '^1$' k get configmap kube-root-ca.crt -o 'go-template={{len .data}}'

# No zone is known of the nodes here: no endpoint gets a hint, and the service is told why.
ok annotated k annotate service every service.kubernetes.io/topology-mode=Auto
soon 'TopologyAwareHintsDisabled +service/every +Insufficient Node information.*addressType: IPv4' k get events
# Endpoints that somebody keeps by hand are mirrored into a slice, which follows them and goes with them.
outside() { # ADDRESSES
  apply <<EOF
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {ports: [{port: 5432}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: outside, labels: {kept: by-hand}}
subsets: [{addresses: [$1], ports: [{port: 5432}]}]
EOF
}
mirrored() { # FIELDS of the service's slices
  k get endpointslices -l kubernetes.io/service-name=outside -o "jsonpath={range .items[*]}$1 {end}"
}
outside '{ip: 192.0.2.1}'
soon '^192.0.2.1 $' mirrored '{.endpoints[*].addresses[*]}'
ok '^endpointslicemirroring-controller.k8s.io by-hand 5432 Endpoints $' mirrored \
  '{.metadata.labels.endpointslice\.kubernetes\.io/managed-by} {.metadata.labels.kept} {.ports[0].port} {.metadata.ownerReferences[0].kind}'
outside '{ip: 192.0.2.1}, {ip: 192.0.2.2}'
soon '^192.0.2.1 192.0.2.2 $' mirrored '{.endpoints[*].addresses[*]}'
ok labeled k label endpoints outside endpointslice.kubernetes.io/skip-mirror=true
soon '^$' mirrored '{.metadata.name}'
ok unlabeled k label endpoints outside endpointslice.kubernetes.io/skip-mirror-
soon '^192.0.2.1 192.0.2.2 $' mirrored '{.endpoints[*].addresses[*]}'
ok deleted k delete endpoints outside
soon '^$' mirrored '{.metadata.name}'

# Jobs: an exit code that ends the job, indexes that may fail, successes that are enough, suspension.
job() { # NAME COMMAND FIELDS
  apply <<EOF
apiVersion: batch/v1
kind: Job
metadata: {name: $1}
spec:
  $3
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: localhost/copepod/web:1, command: [sh, -c, '$2']}]
EOF
}
job codes 'exit 42' 'podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}'
WAIT=60 soon 'PodFailurePolicy.*exit code 42 matching FailJob rule at index 0' k get job codes -o 'jsonpath={.status.conditions}'
job indexes 'exit $(( JOB_COMPLETION_INDEX == 1 ))' 'completions: 3
  parallelism: 3
  completionMode: Indexed
  backoffLimitPerIndex: 0'
WAIT=60 soon '^0,2 1 .*FailedIndexes' k get job indexes -o 'jsonpath={.status.completedIndexes} {.status.failedIndexes} {.status.conditions[*].reason}'
job leader 'test $JOB_COMPLETION_INDEX = 0 || sleep 600' 'completions: 2
  parallelism: 2
  completionMode: Indexed
  successPolicy: {rules: [{succeededIndexes: "0"}]}'
WAIT=60 soon 'Complete' k get job leader -o 'jsonpath={.status.conditions[*].type}'
job later 'sleep 600' 'parallelism: 1'
soon '^1$' k get job later -o 'jsonpath={.status.active}'
ok patched k patch job later --type=merge -p '{"spec":{"suspend":true}}'
WAIT=60 soon 'Suspended' k get job later
ok '^$' k get job later -o 'jsonpath={.status.failed}'

# Each group's own names of an event's fields.
ok 'Scheduled' k get events.v1.events.k8s.io --field-selector reportingController=default-scheduler
ok 'Scheduled' k get events.v1. --field-selector reportingComponent=default-scheduler
no 'field label not supported: reportingController' k get events.v1. --field-selector reportingController=x

# Who did it.
for account in replicaset-controller daemon-set-controller statefulset-controller job-controller endpointslice-controller \
  endpointslicemirroring-controller node-controller; do
  ok "^$account " k get serviceaccount "$account" -n kube-system
done
sa=system:serviceaccount:kube-system:replicaset-controller
ok '^yes' k auth can-i create pods --as=$sa
no '^no' k auth can-i patch replicasets --subresource=status --as=$sa
no '^no' k auth can-i delete nodes --as=$sa
no '^no' k auth can-i create pods --as=system:kube-controller-manager
# Nobody was refused anything for want of a role while this story was told. Events of pods whose namespace goes are refused, too,
# and that is as it should be.
for log in "$DATA"/log/*.log; do
  refused=$(tail -c "+$((${log_bytes[$log]:-0} + 1))" "$log" | grep -E 'User "?[^ ]+"? cannot [a-z]+ resource' || true)
  [ -z "$refused" ] || fail "refused, in $(basename "$log"):" "${refused:0:3000}"
done
