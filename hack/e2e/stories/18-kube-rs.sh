# Programs made with kube-rs, with kube's own client: conformance/kube-rs.
export CONFORMANCE_NODE=1
conformance "${COPEPOD_KUBE_RS:?set by hack/test}"
