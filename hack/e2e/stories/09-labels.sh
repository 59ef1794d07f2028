# Labels, selectors, annotations.
for n in a b c; do ok created k create configmap $n --from-literal=k=$n; done
ok 'configmap/a labeled' k label configmap a env=prod tier=web
ok 'configmap/b labeled' k label configmap b env=test
ok '^a +1 .*env=prod,tier=web' k get cm --show-labels
ok '^NAME +DATA +AGE +ENV +TIER' k get cm -L env,tier
for s in 'env=prod' 'env==prod' 'tier' 'env in (prod,other)' 'env=prod,tier=web'; do
  ok '^a ' k get cm -l "$s"; lacks '^b ' k get cm -l "$s"
done
for s in 'env!=prod' '!tier' 'env notin (prod)'; do
  ok '^b ' k get cm -l "$s"; lacks '^a ' k get cm -l "$s"
done
ok '^c ' k get cm -l '!env'
no "unable to parse requirement" k get cm -l 'env in prod'
no "'env' already has a value \(prod\), and --overwrite is false" k label configmap a env=new
ok 'configmap/a labeled' k label configmap a env=new --overwrite
ok 'configmap/a unlabeled' k label configmap a env-
lacks 'env=' k get cm a --show-labels
ok 'configmap/a annotated' k annotate configmap a note='some text'
ok 'note: some text' k get cm a -o yaml
ok '^a ' k get cm --field-selector metadata.name=a
lacks '^b ' k get cm --field-selector metadata.name=a
no '"data" is not a known field selector: only "metadata.name", "metadata.namespace"' k get cm --field-selector data=a
