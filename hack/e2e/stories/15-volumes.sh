# Volumes of the node and of the API; environment; the downward API; the service account's token.
ok created k create configmap conf --from-literal=key=one
ok created k create secret generic sec --from-literal=pass=word
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: v, labels: {app: v}, annotations: {note: here}}
spec:
  terminationGracePeriodSeconds: 0
  volumes:
  - {name: conf, configMap: {name: conf}}
  - {name: sec, secret: {secretName: sec, defaultMode: 0400}}
  - {name: mem, emptyDir: {medium: Memory}}
  - {name: host, hostPath: {path: /etc}}
  - {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: all, projected: {sources: [{configMap: {name: conf}}, {secret: {name: sec}}]}}
  containers:
  - name: c
    image: localhost/copepod/web:1
    command: ["sleep", "1000"]
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    env:
    - {name: FROM_CONF, valueFrom: {configMapKeyRef: {name: conf, key: key}}}
    - {name: FROM_SEC, valueFrom: {secretKeyRef: {name: sec, key: pass}}}
    - {name: MY_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: MY_LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    - {name: TWICE, value: "$(MY_NAME)-$(MY_NAME)"}
    volumeMounts:
    - {name: conf, mountPath: /conf}
    - {name: sec, mountPath: /sec}
    - {name: mem, mountPath: /mem}
    - {name: host, mountPath: /host, readOnly: true}
    - {name: down, mountPath: /down}
    - {name: all, mountPath: /all}
EOF
soon '^v +1/1' k get pods
ok '^one$' k exec v -- cat /conf/key
ok '^word$' k exec v -- cat /sec/pass
ok '^400$' k exec v -- stat -L -c %a /sec/pass
ok 'tmpfs' k exec v -- grep ' /mem ' /proc/mounts
ok 'root:' k exec v -- cat /host/passwd
ok 'app="v"' k exec v -- cat /down/labels
ok '^one$' k exec v -- cat /all/key
for e in FROM_CONF=one FROM_SEC=word MY_NAME=v MY_LIMIT=67108864 TWICE=v-v KUBERNETES_SERVICE_HOST=10.96.0.1; do ok "^$e\$" k exec v -- env; done
ok '^ey' k exec v -- cat /var/run/secrets/kubernetes.io/serviceaccount/token
ok 'BEGIN CERTIFICATE' k exec v -- cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
ok "^$NS\$" k exec v -- cat /var/run/secrets/kubernetes.io/serviceaccount/namespace
ok '' k patch configmap conf -p '{"data":{"key":"two"}}'
WAIT=90 soon '^two$' k exec v -- cat /conf/key
ok 'QoS Class: +Burstable|QoS Class: +Guaranteed' k describe pod v
