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
# So are shared memory and the name spaces of network, IPC and names; that of mounts is not.
ok '' k exec two -c web -- sh -c 'echo word >/dev/shm/x'
ok '^word$' k exec two -c side -- cat /dev/shm/x
for space in net ipc uts mnt; do
  a=$(k exec two -c web -- readlink /proc/self/ns/$space) b=$(k exec two -c side -- readlink /proc/self/ns/$space)
  case $space in
    mnt) [ "$a" != "$b" ] || fail "one name space of mounts: $a" ;;
    *) [ "$a" = "$b" ] || fail "two name spaces of $space: $a $b" ;;
  esac
done
# A volume outlives a container, and dies with its pod.
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: kept, emptyDir: {}}]
  containers:
  - name: c
    image: localhost/copepod/web:1
    command: ["sh", "-c", "test -e /kept/x && sleep 1000; touch /kept/x /own; exit 1"]
    volumeMounts: [{name: kept, mountPath: /kept}]
EOF
soon '^again +1/1 +Running +1' k get pods
no 'No such file' k exec again -- cat /own
volume=$(k get pod again -o 'jsonpath={.metadata.uid}')/volumes/kubernetes.io~empty-dir/kept
volume=$(echo "$DATA"/*/pods/"$volume")
ok '^x$' ls "$volume"
ok deleted k delete pod again
[ ! -e "$volume" ] || soon 'No such file' bash -c "ls '$volume' 2>&1 || true"
