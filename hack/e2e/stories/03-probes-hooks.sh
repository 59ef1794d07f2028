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
