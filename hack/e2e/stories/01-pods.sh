# A pod from kubectl run, from YAML and from JSON; what get and describe show of it.
ok 'pod/web created' k run web --image=localhost/copepod/web:1 --image-pull-policy=IfNotPresent
soon '^web +1/1 +Running +0 ' k get pods
ok 'NAME +READY +STATUS +RESTARTS +AGE +IP +NODE' k get pods -o wide
ok 'e2e-node' k get pod web -o wide
ok '^  phase: Running$' k get pod web -o yaml
ok '"phase": "Running"' k get pod web -o json
ok 'Successfully assigned e2e-web|Successfully assigned .*/web to e2e-node' k describe pod web
ok 'Container image "localhost/copepod/web:1" already present on machine' k describe pod web
ok 'Created container|Container created' k describe pod web
ok 'Started container|Container started' k describe pod web
ok 'QoS Class: +BestEffort' k describe pod web
ok '^Running$' value pod/web .status.phase
ok '^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$' value pod/web .status.podIP
echo '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"once"},"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"localhost/copepod/web:1","command":["sh","-c","echo done; exit 3"]}]}}' |
  ok 'pod/once created' k create -f -
soon '^once +0/1 +Error ' k get pods
ok '^Failed 3 Error$' k get pod once -o 'jsonpath={.status.phase} {.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}'
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: good}
spec:
  restartPolicy: Never
  containers:
  - {name: c, image: "localhost/copepod/web:1", command: ["true"]}
EOF
soon '^good +0/1 +Completed ' k get pods
ok '^Succeeded$' value pod/good .status.phase
ok 'pod "web" deleted' k delete pod web --grace-period=1
gone pod web
