# The rest of kubectl's everyday commands.
cat >/tmp/$NS.yaml <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {a: "1"}
EOF
ok 'configmap/c created' k apply -f /tmp/$NS.yaml
ok 'configmap/c unchanged' k apply -f /tmp/$NS.yaml
sed -i 's/"1"/"2"/' /tmp/$NS.yaml
no '^\+  a: "2"' k diff -f /tmp/$NS.yaml
ok 'configmap/c configured' k apply -f /tmp/$NS.yaml
ok 'configmap/c configured \(server dry run\)|unchanged \(server dry run\)' k apply -f /tmp/$NS.yaml --dry-run=server
ok 'a: "2"' k get cm c -o yaml
ok 'configmap/c replaced' k replace -f /tmp/$NS.yaml
export EDITOR='sed -i s/\"2\"/\"3\"/'
ok 'configmap/c edited' k edit cm c
rm -f /tmp/$NS.yaml
ok created k create secret generic s --from-literal=p=w
ok '^w$' kk "k get secret s -o jsonpath={.data.p} | base64 -d"
ok created k run p --image=localhost/copepod/web:1
ok 'condition met' k wait pod/p --for=condition=Ready --timeout=60s
ok 'Scheduled' k events --for pod/p
timeout 10 "$KUBECTL" --kubeconfig "$KUBECONFIG_FILE" -n "$NS" get pods -w >/tmp/$NS.watch 2>&1 &
soon '^p ' cat /tmp/$NS.watch
ok deleted k delete pod p --grace-period=1
soon '^p +[01]/1 +(Terminating|Completed|Error)' cat /tmp/$NS.watch
rm -f /tmp/$NS.watch
ok created k create role r --verb=get --resource=pods
ok created k create rolebinding rb --role=r --user=bob
soon '^yes$' k auth can-i get pods --as=bob
no '^no' k auth can-i delete pods --as=bob
ok created k create serviceaccount sa
ok '^ey' k create token sa
ok '^NAME +STATUS +ROLES +AGE +VERSION' k get nodes
ok '^e2e-node +Ready +<none> +[0-9a-z]+ +v1\.36' k get nodes
ok 'KubeletReady' k describe node e2e-node
ss() { printf '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ss"},"data":{"a":"%s"}}' "$1"; }
ok 'serverside-applied' k apply --server-side -f - <<<"$(ss 1)"
no 'Apply failed with 1 conflict: conflict with "kubectl": \.data\.a' k apply --server-side --field-manager=other -f - <<<"$(ss 2)"
ok 'serverside-applied' k apply --server-side --field-manager=other --force-conflicts -f - <<<"$(ss 2)"
ok 'role.rbac.authorization.k8s.io/r reconciled' k auth reconcile -f - <<EOF
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: r, namespace: $NS}
rules: [{apiGroups: [""], resources: [pods], verbs: [delete]}]
EOF
soon '^yes$' k auth can-i delete pods --as=bob
ok '^pods +\[\] +\[\] +\[.*delete' k auth can-i --list --as=bob
ok 'is running at' k cluster-info
ok '"major": "1"' k get --raw /version
ok '"continue":"ey' k get --raw "/api/v1/namespaces/$NS/configmaps?limit=1"
ok '^NAME +SHORTNAMES +APIVERSION +NAMESPACED +KIND$' k api-resources
ok '^deployments.apps$' k api-resources --api-group=apps -o name
lacks '^nodes$' k api-resources --namespaced=true -o name
ok '' k wait --for=delete pod/p --timeout=30s
ok 'condition met' k wait --for=create configmap/ss --timeout=5s
