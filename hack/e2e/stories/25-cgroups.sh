# The kernel's limits of the node, of QoS classes, pods and containers, on cgroup v1 and v2: what the files hold, what
# happens at a limit of memory, resizing in place, and that nothing is left of a pod that is gone.
bridge=$(sed -n 's/.*"bridge": "\(.*\)".*/\1/p' "$DATA/settings.json")
v2=$([ ! -e /sys/fs/cgroup/cgroup.controllers ] || echo yes)

place() { # CGROUP FILE: the path of a file of a cgroup below kubepods
  if [ "$v2" ]; then echo "/sys/fs/cgroup/$bridge/kubepods/$1/$2"; else echo "/sys/fs/cgroup/${2%%.*}/$bridge/kubepods/$1/$2"; fi
}
holds() { # CGROUP V1_FILE CONTENT V2_FILE CONTENT: contents are regular expressions
  if [ "$v2" ]; then soon "^($5)\$" cat "$(place "$1" "$4")"; else soon "^($3)\$" cat "$(place "$1" "$2")"; fi
}
cgroup_of() { echo "${2:-}pod$(value "pod/$1" .metadata.uid)"; } # POD [CLASS/]
id_of() { value "pod/$1" '.status.containerStatuses[0].containerID' | sed 's#containerd://##'; }

pod() { # NAME RESOURCES COMMAND
  apply <<POD
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "$1"}, "spec": {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never",
 "containers": [{"name": "c", "image": "localhost/copepod/web:1", "resources": $2, "command": ["sh", "-c", "$3"]}]}}
POD
}
pod guaranteed '{"limits": {"cpu": "500m", "memory": "64Mi"}}' 'dd if=/dev/zero of=/dev/shm/held bs=1M count=24; exec sleep 1000'
pod burstable '{"requests": {"cpu": "250m", "memory": "32Mi"}}' 'exec sleep 1000'
pod besteffort '{}' 'exec sleep 1000'
pod exceeds '{"limits": {"memory": "16Mi"}}' 'exec tail /dev/zero'
pod group '{"limits": {"memory": "16Mi"}}' 'tail /dev/zero; echo the shell lives; exec sleep 1000'
for name in guaranteed burstable besteffort; do soon "^$name +1/1" k get pod $name; done
ok '^Guaranteed$' value pod/guaranteed .status.qosClass
ok '^Burstable$' value pod/burstable .status.qosClass
ok '^BestEffort$' value pod/besteffort .status.qosClass

# What systemd does to its own cgroups does not reach ours, and on v2 the daemons are in none of its sessions and services.
[ ! -d /run/systemd/system ] || systemctl daemon-reload
[ ! "$v2" ] || ok "^0::/$bridge/daemons\$" cat "/proc/$(cut -d' ' -f1 "$DATA/run/containerd.pid")/cgroup"

# The node: all of its memory, and processes where there is a controller of them. Classes: weights.
memory=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) * 1024))
pids=$(sort -n /proc/sys/kernel/pid_max /proc/sys/kernel/threads-max | head -n 1)
holds . memory.limit_in_bytes "$memory" memory.max "$memory"
[ ! -e "$(place . pids.max)" ] || holds . pids.max "$pids" pids.max "$pids"
holds besteffort cpu.shares 2 cpu.weight 1
# At least what this story's pods ask for: those of others may still be going.
holds burstable cpu.shares '25[6-9]|2[6-9][0-9]|[3-9][0-9][0-9]' cpu.weight '[1-9][0-9]'

# Pods and their containers. Of a container runc makes the weight, by a formula that changed with version 1.3.2.
g=$(cgroup_of guaranteed) b=$(cgroup_of burstable burstable/) e=$(cgroup_of besteffort besteffort/)
for cgroup in "$g" "$g/$(id_of guaranteed)"; do
  holds "$cgroup" cpu.shares 512 cpu.weight '20|59'
  holds "$cgroup" cpu.cfs_quota_us 50000 cpu.max '50000 100000'
  holds "$cgroup" memory.limit_in_bytes 67108864 memory.max 67108864
done
for cgroup in "$b" "$b/$(id_of burstable)"; do
  holds "$cgroup" cpu.shares 256 cpu.weight '10|35'
  holds "$cgroup" cpu.cfs_quota_us -1 cpu.max 'max 100000'
  holds "$cgroup" memory.limit_in_bytes 9223372036854771712 memory.max max
done
for cgroup in "$e" "$e/$(id_of besteffort)"; do holds "$cgroup" cpu.shares 2 cpu.weight 1; done
if [ "$v2" ]; then
  ok '^1$' cat "$(place "$g/$(id_of guaranteed)" memory.oom.group)"
  swap=$(place "$g/$(id_of guaranteed)" memory.swap.max)
  [ ! -e "$swap" ] || ok '^0$' cat "$swap"
  # A container sees its own cgroup as the root.
  ok '^0::/$' k exec guaranteed -- cat /proc/self/cgroup
  ok '^67108864$' k exec guaranteed -- cat /sys/fs/cgroup/memory.max
fi

# Whom the kernel ends first when the machine is out of memory. Lowering it takes a capability that not every machine gives.
ok '^1000$' k exec besteffort -- cat /proc/1/oom_score_adj
ok '^9[0-9][0-9]$' k exec burstable -- cat /proc/1/oom_score_adj
[ $((0x$(awk '/^CapEff:/ {print $2}' /proc/self/status) >> 24 & 1)) = 0 ] || ok '^-997$' k exec guaranteed -- cat /proc/1/oom_score_adj

# More memory than the limit: one process ends on v1, all of the container on v2.
ended='{.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}'
soon '^137 OOMKilled$' k get pod exceeds -o "jsonpath=$ended"
soon '^exceeds +0/1 +OOMKilled +0 ' k get pod exceeds
if [ "$v2" ]; then soon '^137 OOMKilled$' k get pod group -o "jsonpath=$ended"; else soon 'the shell lives' k logs group; fi

# Resized in place, up and down, but not to less than is in use.
resize() { k patch pod guaranteed --subresource resize --patch "{\"spec\": {\"containers\": [{\"name\": \"c\", \"resources\": $1}]}}"; }
ok 'pod/guaranteed patched' resize '{"requests": {"cpu": "750m", "memory": "96Mi"}, "limits": {"cpu": "750m", "memory": "96Mi"}}'
for cgroup in "$g" "$g/$(id_of guaranteed)"; do
  holds "$cgroup" cpu.shares 768 cpu.weight '30|80'
  holds "$cgroup" cpu.cfs_quota_us 75000 cpu.max '75000 100000'
  holds "$cgroup" memory.limit_in_bytes 100663296 memory.max 100663296
done
ok 'pod/guaranteed patched' resize '{"requests": {"cpu": "250m", "memory": "48Mi"}, "limits": {"cpu": "250m", "memory": "48Mi"}}'
for cgroup in "$g" "$g/$(id_of guaranteed)"; do
  holds "$cgroup" cpu.cfs_quota_us 25000 cpu.max '25000 100000'
  holds "$cgroup" memory.limit_in_bytes 50331648 memory.max 50331648
done
ok 'pod/guaranteed patched' resize '{"requests": {"memory": "8Mi"}, "limits": {"memory": "8Mi"}}'
soon 'memory limit \(8388608\) below current usage \([0-9]+\)' \
  k get events --field-selector reason=ResizeError -o 'jsonpath={.items[*].message}'
holds "$g/$(id_of guaranteed)" memory.limit_in_bytes 50331648 memory.max 50331648
ok '^guaranteed +1/1 +Running +0 ' k get pod guaranteed

ok 'deleted' k delete pod --all --grace-period=0 --force
for cgroup in "$g" "$b" "$e"; do
  until=$((SECONDS + ${WAIT:-30}))
  while [ -e "$(place "$cgroup" cpu.stat)" ]; do [ $SECONDS -lt $until ] || fail "still there: $cgroup"; sleep 0.1; done
done
