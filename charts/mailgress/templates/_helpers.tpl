{{/* Names, labels, and values that are computed from others. */}}

{{- define "mailgress.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* 50 characters, so that a name with a suffix has at most 63. */}}
{{- define "mailgress.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "mailgress.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* Names of cluster-wide objects contain the namespace, so that two releases do not share them. */}}
{{- define "mailgress.clusterName" -}}
{{- $name := include "mailgress.fullname" . -}}
{{- $namespace := include "mailgress.namespace" . -}}
{{- if eq $name $namespace }}{{ $name }}{{ else }}{{ printf "%s-%s" $namespace $name }}{{ end -}}
{{- end -}}

{{- define "mailgress.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mailgress.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: say which one, since serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "mailgress.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "mailgress.selectorLabels" -}}
app.kubernetes.io/name: {{ include "mailgress.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The labels of pods that serve mail. No other pod of the release has them. */}}
{{- define "mailgress.podSelector" -}}
{{ include "mailgress.selectorLabels" . }}
app.kubernetes.io/component: proxy
{{- end -}}

{{/* The labels of every object. Takes the root, or a dict of `root` and more `labels`. */}}
{{- define "mailgress.labels" -}}
{{- $root := default . .root -}}
{{- $own := dict
  "helm.sh/chart" (include "mailgress.chart" $root)
  "app.kubernetes.io/version" ($root.Chart.AppVersion | toString)
  "app.kubernetes.io/managed-by" $root.Release.Service
  "app.kubernetes.io/part-of" "mailgress" -}}
{{- $selector := include "mailgress.selectorLabels" $root | fromYaml -}}
{{- toYaml (mustMerge (dict) $selector $own (default (dict) .labels) $root.Values.commonLabels) -}}
{{- end -}}

{{/* The field `annotations:`, including the annotations of all objects, or nothing. Takes a dict of `root` and `annotations`. */}}
{{- define "mailgress.annotations" -}}
{{- with mustMerge (dict) (default (dict) .annotations) .root.Values.commonAnnotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* The metadata without the name. Takes a dict of `root` and optional `namespace`, `labels`, `annotations`. */}}
{{- define "mailgress.metadata" -}}
namespace: {{ default (include "mailgress.namespace" .root) .namespace }}
labels:
  {{- include "mailgress.labels" . | nindent 2 }}
{{- with include "mailgress.annotations" . }}
{{ . }}
{{- end }}
{{- end -}}

{{- define "mailgress.image" -}}
{{- $image := .Values.image -}}
{{- $name := $image.repository -}}
{{- if $image.registry }}{{ $name = printf "%s/%s" $image.registry $name }}{{ end -}}
{{- $tag := $image.tag | default .Chart.AppVersion | toString -}}
{{- if $image.digest -}}
{{- if $image.tag }}{{ $name = printf "%s:%s" $name $tag }}{{ end -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name $tag -}}
{{- end -}}
{{- end -}}

{{/* Whole seconds, rounded up, of a duration such as 1h30m or 500ms. Takes a dict of `field` and `value`. */}}
{{- define "mailgress.seconds" -}}
{{- if not (regexMatch "^([0-9]{1,6}(h|ms|m|s))+$" .value) -}}
{{- fail (printf "%s: %q is not a duration such as 30s, 1m30s or 500ms" .field .value) -}}
{{- end -}}
{{- $milliseconds := 0 -}}
{{- range regexFindAll "[0-9]+(h|ms|m|s)" .value -1 -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := get (dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1) (regexFind "[a-z]+$" .) -}}
{{- $milliseconds = add $milliseconds (mul $number $unit) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end -}}

{{- define "mailgress.gracePeriod" -}}
{{- $seconds := 0 -}}
{{- /* The spread is a part of the timeout. */ -}}
{{- range $field, $value := omit .Values.drain "spread" -}}
{{- $seconds = add $seconds (include "mailgress.seconds" (dict "field" (printf "drain.%s" $field) "value" $value) | int64) -}}
{{- end -}}
{{- $seconds -}}
{{- end -}}

{{/* The effective lowPorts: Sysctl, Capability or None. */}}
{{- define "mailgress.lowPorts" -}}
{{- $wanted := .Values.lowPorts -}}
{{- if eq $wanted "Auto" -}}
{{- ternary "Capability" "Sysctl" .Values.hostNetwork -}}
{{- else -}}
{{- if and (eq $wanted "Sysctl") .Values.hostNetwork -}}
{{- fail "lowPorts: Kubernetes allows no net.* sysctl with hostNetwork; use Capability, or None with ports from 1024 on" -}}
{{- end -}}
{{- $wanted -}}
{{- end -}}
{{- end -}}

{{/* Whether there may be more than one replica: "true" or nothing. */}}
{{- define "mailgress.isReplicated" -}}
{{- if eq .Values.kind "DaemonSet" -}}
true
{{- else if .Values.autoscaling.enabled -}}
{{- if gt (int .Values.autoscaling.maxReplicas) 1 }}true{{ end -}}
{{- else if gt (int .Values.replicas) 1 -}}
true
{{- end -}}
{{- end -}}

{{/* Whether the API server knows the kind. Also true without an API server: `helm template`, and Argo CD, which sorts the objects itself. */}}
{{- define "mailgress.knowsOurKinds" -}}
{{- if .Capabilities.APIVersions.Has "mailgress.dev/v1alpha1/MailServer" -}}
true
{{- else if not (lookup "v1" "Namespace" "" "default") -}}
true
{{- end -}}
{{- end -}}
