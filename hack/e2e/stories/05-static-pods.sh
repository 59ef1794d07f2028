# A manifest in the node's folder is a pod; the API shows its mirror; without the file it goes.
cat >"$DATA/manifests/static-$NS.json" <<EOF
{"apiVersion":"v1","kind":"Pod","metadata":{"name":"static","namespace":"$NS"},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"localhost/copepod/web:1"}]}}
EOF
soon '^static-e2e-node +1/1 +Running' k get pods
ok 'kubernetes.io/config.mirror' k get pod static-e2e-node -o yaml
ok 'kubernetes.io/config.source: file' k get pod static-e2e-node -o yaml
rm "$DATA/manifests/static-$NS.json"
gone pod static-e2e-node
