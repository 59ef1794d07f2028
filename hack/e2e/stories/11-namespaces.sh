# The namespaces that are there; one that goes takes all with it.
for n in default kube-system kube-public kube-node-lease; do ok "^$n +Active" k get ns; done
ok created k create namespace $NS-x
ok created k -n $NS-x create configmap c
ok created k -n $NS-x run p --image=localhost/copepod/web:1
soon '^p +1/1' k -n $NS-x get pods
soon '^default ' k -n $NS-x get serviceaccounts
soon '^kube-root-ca.crt ' k -n $NS-x get configmaps
ok deleted k delete namespace $NS-x --timeout=60s
no "namespaces \"$NS-x\" not found" k get ns $NS-x
no "namespaces \"$NS-x\" not found" k -n $NS-x create configmap c
no 'this namespace may not be deleted' k delete namespace default
