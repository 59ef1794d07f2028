# Of a running pod only few fields may change; the refusal is upstream's.
ok created k run p --image=localhost/copepod/web:1 --labels=a=b
soon '^p +1/1 +Running' k get pods
no 'spec: Forbidden: pod updates may not change fields other than `spec.containers\[\*\].image`,`spec.initContainers\[\*\].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` \(only additions to existing tolerations\),`spec.terminationGracePeriodSeconds` \(allow it to be set to 1 if it was previously negative\)' \
  k patch pod p --type=merge -p '{"spec":{"nodeName":"other"}}'
no 'The Pod "p" is invalid' k patch pod p --type=merge -p '{"spec":{"restartPolicy":"Never"}}'
ok 'pod/p patched' k patch pod p -p '{"spec":{"activeDeadlineSeconds":100000}}'
ok 'patched \(no change\)' k patch pod p -p '{"spec":{"activeDeadlineSeconds":100000}}'
ok 'pod/p patched' k patch pod p --type=json -p '[{"op":"add","path":"/metadata/annotations","value":{"x":"y"}}]'
no 'the server rejected our request due to an error in our request|is invalid' k patch pod p --type=json -p '[{"op":"test","path":"/metadata/name","value":"q"}]'
no 'Invalid value: "A_B": a lowercase RFC 1123 subdomain must consist of' k run A_B --image=x
no 'spec.containers\[0\].image: Required value|is invalid' k create -f - <<<'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"q"},"spec":{"containers":[{"name":"c"}]}}'
no 'unknown field "spec.container"' k create -f - <<<'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"q"},"spec":{"container":[]}}'
no 'pods "p" already exists' k create -f - <<<'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"x"}]}}'
no 'pods "nothing" not found' k get pod nothing
