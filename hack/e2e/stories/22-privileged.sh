# What a container may do: as usual, privileged, without capabilities and as another user.
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: usual, image: "localhost/copepod/web:1", command: ["sleep", "1000"]}
  - {name: privileged, image: "localhost/copepod/web:1", command: ["sleep", "1000"], securityContext: {privileged: true}}
  - {name: less, image: "localhost/copepod/web:1", command: ["sleep", "1000"], securityContext: {capabilities: {drop: [ALL]}, runAsUser: 1000, readOnlyRootFilesystem: true}}
EOF
soon '^p +3/3' k get pods
no 'ermission denied|not permitted' k exec p -c usual -- mount -t tmpfs none /tmp
ok '' k exec p -c privileged -- sh -c 'mount -t tmpfs none /tmp; touch /tmp/x'
ok '^CapEff:[[:space:]]+0+$' k exec p -c less -- grep CapEff /proc/self/status
lacks '^CapEff:[[:space:]]+0+$' k exec p -c usual -- grep CapEff /proc/self/status
ok '^1000$' k exec p -c less -- id -u
no 'Read-only file system' k exec p -c less -- touch /tmp/x
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: root}
spec:
  containers: [{name: c, image: "localhost/copepod/web:1", securityContext: {runAsNonRoot: true}}]
EOF
soon '^root +0/1 +CreateContainerConfigError' k get pods
soon 'container has runAsNonRoot and image will run as root' k describe pod root
