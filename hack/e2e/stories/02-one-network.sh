# Containers of a pod share network and volumes, and have file systems of their own.
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: shared, emptyDir: {}}]
  containers:
  - name: web
    image: localhost/copepod/web:1
    ports: [{containerPort: 8080}]
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: side
    image: localhost/copepod/web:1
    command: ["sleep", "1000"]
    volumeMounts: [{name: shared, mountPath: /shared}]
EOF
soon '^two +2/2 +Running' k get pods
ok 'It runs' k exec two -c side -- wget -qO- http://127.0.0.1:8080/
ok '' k exec two -c web -- sh -c 'echo hello >/shared/x; echo own >/own'
ok '^hello$' k exec two -c side -- cat /shared/x
no 'No such file' k exec two -c side -- cat /own
ok '^two$' k exec two -c side -- hostname
ok 'two' k exec two -c side -- cat /etc/hosts
# The address is one for both.
ip=$(value pod/two .status.podIP)
ok "$ip" k exec two -c web -- ip addr
ok "$ip" k exec two -c side -- ip addr
ok 'It runs' k exec two -c side -- wget -qO- "http://$ip:8080/"
