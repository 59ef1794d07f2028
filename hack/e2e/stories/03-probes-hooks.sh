# Probes, hooks, init containers, restarts with back-off.
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: first, image: "localhost/copepod/web:1", command: ["sh", "-c", "echo init > /work/index.html"], volumeMounts: [{name: work, mountPath: /work}]}
  volumes: [{name: work, emptyDir: {}}]
  containers:
  - name: web
    image: localhost/copepod/web:1
    command: ["/bin/httpd", "-f", "-p", "8080", "-h", "/work"]
    volumeMounts: [{name: work, mountPath: /work}]
    startupProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1, failureThreshold: 20}
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    livenessProbe: {exec: {command: ["test", "-e", "/work/index.html"]}, periodSeconds: 1, failureThreshold: 1}
    lifecycle:
      postStart: {exec: {command: ["sh", "-c", "echo started > /work/post"]}}
EOF
soon '^probed +1/1 +Running +0 ' k get pods
ok '^started$' k exec probed -- cat /work/post
ok '^init$' k exec probed -- wget -qO- http://127.0.0.1:8080/index.html
# The file goes, the liveness probe fails, the container is restarted; it comes back only with the file.
ok '' k exec probed -- rm /work/index.html
soon '^probed +[01]/1 +[A-Za-z]+ +[1-9]' k get pods
soon 'Liveness probe failed' k describe pod probed
soon 'failed liveness probe, will be restarted' k describe pod probed
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec:
  containers: [{name: c, image: "localhost/copepod/web:1", command: ["sh", "-c", "echo oops; exit 1"]}]
EOF
soon '^crash +0/1 +CrashLoopBackOff +[1-9]' k get pods
soon 'Back-off restarting failed container' k describe pod crash
ok 'oops' k logs crash --previous
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: missing}
spec:
  containers: [{name: c, image: "localhost/copepod/nothing:1", imagePullPolicy: Never}]
EOF
soon '^missing +0/1 +ErrImageNeverPull +0' k get pods
# HTTP by its status: 404 fails, a redirect to another host passes; gRPC that nobody serves fails.
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: http}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: missing
    image: localhost/copepod/web:1
    readinessProbe: {httpGet: {path: /nothing, port: 8080}, periodSeconds: 1}
  - name: moved
    image: localhost/copepod/web:1
    command: ["sh", "-c", "while true; do printf 'HTTP/1.1 302 Found\\r\\nLocation: http://elsewhere.example/\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n' | nc -l -p 8081; done"]
    readinessProbe: {httpGet: {path: /, port: 8081}, periodSeconds: 1}
  - name: grpc
    image: localhost/copepod/web:1
    command: ["sleep", "1000"]
    readinessProbe: {grpc: {port: 9}, periodSeconds: 1}
EOF
soon 'Readiness probe failed: HTTP probe failed with statuscode: 404' k describe pod http
soon 'Readiness probe failed: .*failed to connect service' k describe pod http
soon '^moved=true$' k get pod http -o 'jsonpath={range .status.containerStatuses[*]}{.name}={.ready}{"\n"}{end}'
soon '^http +1/3 +Running' k get pods
# Before it ends a container does what preStop says.
mkdir -p /tmp/$NS.hook
apply <<EOF
apiVersion: v1
kind: Pod
metadata: {name: ends}
spec:
  terminationGracePeriodSeconds: 5
  volumes: [{name: out, hostPath: {path: /tmp/$NS.hook}}]
  containers:
  - name: c
    image: localhost/copepod/web:1
    volumeMounts: [{name: out, mountPath: /out}]
    lifecycle: {preStop: {exec: {command: ["sh", "-c", "echo ended >/out/hook"]}}}
EOF
soon '^ends +1/1' k get pods
ok deleted k delete pod ends
ok '^ended$' cat /tmp/$NS.hook/hook
rm -rf /tmp/$NS.hook
