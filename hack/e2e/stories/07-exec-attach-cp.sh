# exec with and without input and terminal, exit codes, attach, cp, port-forward.
ok created k run p --image=localhost/copepod/web:1
soon '^p +1/1' k get pods
ok '^hi$' k exec p -- echo hi
ok '^through$' kk "echo through | k exec -i p -- cat"
code=0; k exec p -- sh -c 'exit 42' >/dev/null 2>&1 || code=$?
ok '^42$' echo $code
ok 'to stderr' kk "k exec p -- sh -c 'echo to stderr >&2' 2>&1 >/dev/null"
no 'container nope is not valid|container not found' k exec p -c nope -- true
no 'no such file|not found|OCI runtime exec failed' k exec p -- /no/such/program
# Large input and output arrive whole.
head -c 3000000 /dev/urandom >/tmp/$NS.in
ok "$(sha256sum </tmp/$NS.in | cut -d' ' -f1)" kk "k exec -i p -- sha256sum </tmp/$NS.in"
ok '' k cp /tmp/$NS.in p:/tmp/copied
ok '' k cp p:/tmp/copied /tmp/$NS.out
cmp /tmp/$NS.in /tmp/$NS.out
rm -f /tmp/$NS.in /tmp/$NS.out
# A terminal where kubectl has one.
ok '^/dev/pts/' script -qec "$KUBECTL --kubeconfig $KUBECONFIG_FILE -n $NS exec -it p -- tty" /dev/null
k port-forward pod/p :8080 >/tmp/$NS.pf 2>&1 &
forward=$!
soon 'Forwarding from 127.0.0.1' cat /tmp/$NS.pf
port=$(sed -n 's/.*127.0.0.1:\([0-9]*\).*/\1/p' /tmp/$NS.pf | head -n 1)
ok 'It runs' curl -sS "http://127.0.0.1:$port/"
ok 'It runs' curl -sS "http://127.0.0.1:$port/"
kill $forward
rm -f /tmp/$NS.pf
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: in}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "localhost/copepod/web:1", stdin: true, stdinOnce: true, command: ["sh", "-c", "read x; echo got $x; sleep 2"]}]
EOF
soon '^in +1/1' k get pods
ok 'got word' kk "echo word | k attach -i in -c c"
