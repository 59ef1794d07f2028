# kubectl debug: a container in a pod that runs, a copy of a pod, a pod on the node.
ok created k run p --image=localhost/copepod/web:1
soon '^p +1/1' k get pods
before=$(value pod/p '.status.containerStatuses[0].containerID')
ok 'Defaulting debug container name to debugger-' k debug p --image=localhost/copepod/web:1 --attach=false -- sleep 1000
ok '' k debug p --image=localhost/copepod/web:1 -c look --attach=false -- sh -c 'wget -qO- http://127.0.0.1:8080/; sleep 1000'
soon 'running' value pod/p '.status.ephemeralContainerStatuses[?(@.name=="look")].state'
soon 'It runs' k logs p -c look
ok 'Ephemeral Containers:' k describe pod p
# In the name space of a container's processes, with input. The runtime ends an attach with its input, so the log is asked.
ok 'Targeting container "p"' kk "echo word | k debug p -i --image=localhost/copepod/web:1 --target=p -c asks -- sh -c 'ps; read x; echo got \$x'"
soon '^ +1 root .*httpd' k logs p -c asks
soon '^got word$' k logs p -c asks
soon 'terminated' value pod/p '.status.ephemeralContainerStatuses[?(@.name=="asks")].state'
no 'is invalid|may not be|Forbidden|cannot' k debug p --image=localhost/copepod/web:1 -c look --attach=false -- true
ok "^$before\$" value pod/p '.status.containerStatuses[0].containerID'
ok '^p +1/1 +Running +0' k get pods
# A copy, with another command and one name space of processes.
ok '' k debug p --copy-to=copy --container=p --share-processes --attach=false -- sleep 1000
soon '^copy +1/1 +Running' k get pods
ok 'pause' k exec copy -- ps
ok '^sleep 1000' k exec copy -- sh -c 'tr "\0" " " </proc/$(pidof sleep)/cmdline'
ok '' k debug p --copy-to=other --set-image=p=localhost/copepod/web:1 --attach=false
soon '^other +1/1 +Running' k get pods
# On the node, with its file system.
ok 'Creating debugging pod node-debugger-e2e-node-[a-z0-9]+ with container debugger on node e2e-node\.' \
  k debug node/e2e-node --image=localhost/copepod/web:1 --attach=false -- sh -c 'hostname; head -n 1 /host/etc/passwd; ls /proc | grep -c ^[0-9]'
pod=$(k get pods -o name | sed -n 's/^pod.\(node-debugger.*\)/\1/p')
soon "^$pod +0/1 +Completed" k get pods
ok "^$(hostname)\$" k logs "$pod"
ok '^root:' k logs "$pod"
ok '^true true true$' k get pod "$pod" -o 'jsonpath={.spec.hostNetwork} {.spec.hostPID} {.spec.hostIPC}'
