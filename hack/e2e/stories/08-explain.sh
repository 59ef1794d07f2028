# explain prints upstream's text; discovery lists what is served.
ok 'KIND: +Pod' k explain pods
ok 'Pod is a collection of containers that can run on a host' k explain pods
ok 'FIELD: containers <\[\]Container>' k explain pod.spec.containers
ok 'List of containers belonging to the pod' k explain pod.spec.containers
ok 'Entrypoint array\. Not executed within a shell' k explain pod.spec.containers.command
ok '^pods +po +v1 +true +Pod' k api-resources
ok '^deployments +deploy +apps/v1 +true +Deployment' k api-resources
ok '^apps/v1$' k api-versions
ok '"gitVersion": "v1\.36\.[0-9]+\+copepod' k version -o json
ok '^ok$' k get --raw /readyz
ok 'apiserver_request_total' k get --raw /metrics
ok 'Username +kubernetes-admin' k auth whoami
ok '^yes$' k auth can-i create pods
no '^no$' k auth can-i create pods --as=nobody
no 'pods is forbidden: User "nobody" cannot list resource "pods" in API group "" in the namespace' k get pods --as=nobody
