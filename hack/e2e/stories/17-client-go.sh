# Programs made with client-go, on a cluster with a node, while its API server is killed: conformance/client-go.
for unit in copepod apiserver; do [ -e "$DATA/run/$unit.pid" ] && server=$unit; done
export CONFORMANCE_NODE=1
export CONFORMANCE_RESTART="kill -9 \$(cut -d' ' -f1 '$DATA/run/$server.pid'); '$COPEPOD' --data-dir '$DATA' up --no-kubeconfig"
conformance "${COPEPOD_CLIENT_GO:?set by hack/test}" -test.v -test.parallel=8 -test.timeout=5m
