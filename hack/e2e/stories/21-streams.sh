# exec, attach, cp and port-forward go through WebSocket; kubectl's silent way out to SPDY is not taken, and works.
ok created k run p --image=localhost/copepod/web:1
apply <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  restartPolicy: Never
  containers: [{name: c, image: "localhost/copepod/web:1", stdin: true, stdinOnce: true, command: ["sh", "-c", "cat; echo end"]}]
EOF
soon '^p +1/1' k get pods
soon '^asks +1/1' k get pods
websocket() { # PROTOCOL COMMAND...: what kubectl says at -v=4 of the road it took
  ok "$1" "${@:2}"
  ! grep -Ei 'fallback|falling back' <<<"$OUT" || fail "kubectl fell back: $OUT"
}
v5='Subprotocol negotiated.*v5\.channel\.k8s\.io'
websocket "$v5" k exec p -v=4 -- true
websocket "$v5" kk "echo through | k exec -i p -v=4 -- cat"
ok '^through$' printf '%s' "$OUT"
# Input that ends, ends the program that reads it: it is given its input once.
websocket "$v5" kk "echo word | k attach -i asks -v=4"
ok '^end' printf '%s' "$OUT"
soon '^asks +0/1 +Completed' k get pods
ok '^word$' k logs asks
k port-forward pod/p :8080 -v=4 >/tmp/$NS.pf 2>&1 &
forward=$!
soon 'Forwarding from 127.0.0.1' cat /tmp/$NS.pf
port=$(sed -n 's/.*127.0.0.1:\([0-9]*\).*/\1/p' /tmp/$NS.pf | head -n 1)
ok 'It runs' curl -sS "http://127.0.0.1:$port/"
ok 'negotiated protocol: portforward\.k8s\.io' cat /tmp/$NS.pf
lacks 'fallback' cat /tmp/$NS.pf
kill $forward
rm -f /tmp/$NS.pf
# The older road, as older clients take it.
export KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false KUBECTL_PORT_FORWARD_WEBSOCKETS=false
lacks 'Subprotocol negotiated' k exec p -v=4 -- true
ok '^through$' kk "echo through | k exec -i p -- cat"
code=0; k exec p -- sh -c 'exit 42' >/dev/null 2>&1 || code=$?
ok '^42$' echo $code
k port-forward pod/p :8080 -v=4 >/tmp/$NS.pf 2>&1 &
forward=$!
soon 'Forwarding from 127.0.0.1' cat /tmp/$NS.pf
port=$(sed -n 's/.*127.0.0.1:\([0-9]*\).*/\1/p' /tmp/$NS.pf | head -n 1)
ok 'It runs' curl -sS "http://127.0.0.1:$port/"
lacks 'negotiated protocol' cat /tmp/$NS.pf
kill $forward
rm -f /tmp/$NS.pf
