# Deployments: scaling, rolling update, history, rollback; lost pods are replaced.
ok 'deployment.apps/web created' k create deployment web --image=localhost/copepod/web:1 --replicas=2
WAIT=60 ok 'successfully rolled out' k rollout status deployment/web --timeout=60s
ok '^web +2/2 +2 +2 ' k get deployments
ok 'deployment.apps/web scaled' k scale deployment web --replicas=3
ok 'condition met' k wait deployment/web --for=jsonpath='{.status.readyReplicas}'=3 --timeout=60s
pod=$(k get pods -l app=web -o 'jsonpath={.items[0].metadata.name}')
ok deleted k delete pod "$pod" --grace-period=0 --force
soon '^web +3/3' k get deployments
ok 'image updated|env updated' k set env deployment/web VERSION=2
ok 'successfully rolled out' k rollout status deployment/web --timeout=60s
ok '^2 ' k rollout history deployment/web
ok 'VERSION' k get deployment web -o yaml
ok 'rolled back' k rollout undo deployment/web
ok 'successfully rolled out' k rollout status deployment/web --timeout=60s
lacks 'VERSION' k get deployment web -o yaml
ok '^3 ' k rollout history deployment/web
ok 'restarted' k rollout restart deployment/web
ok 'successfully rolled out' k rollout status deployment/web --timeout=60s
ok 'ScalingReplicaSet' k describe deployment web
ok 'Scaled up replica set web-[a-z0-9]+ from 0 to 2' k describe deployment web
ok exposed k expose deployment web --port=80 --target-port=8080
ok '^web +ClusterIP +10\.[0-9.]+ +<none> +80/TCP' k get services
soon ':8080' k get endpoints web
soon ':8080|8080 ' k get endpointslices
ok 'NodePort' k create service nodeport np --tcp=80:8080 -o wide --dry-run=server -o yaml
ok 'spec.clusterIP|clusterIPs' k get service web -o yaml
ok 'deleted' k delete deployment web
