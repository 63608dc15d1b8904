{{/* The pod, the same for a Deployment and a DaemonSet. */}}

{{- define "mailgress.pod" -}}
{{- $name := include "mailgress.fullname" . -}}
{{- $namespace := include "mailgress.namespace" . -}}
{{- $low := include "mailgress.lowPorts" . -}}
{{- $asRoot := eq $low "Capability" -}}
metadata:
  labels:
    {{- /* Without the chart's version, so that a release without changes of the pods ends no session. */}}
    {{- toYaml (mustMerge (include "mailgress.podSelector" . | fromYaml) .Values.podLabels .Values.commonLabels) | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: mailgress
    {{- with mustMerge (dict) .Values.podAnnotations .Values.commonAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "mailgress.serviceAccount" . }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "mailgress.gracePeriod" . }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .Values.schedulerName }}
  schedulerName: {{ . }}
  {{- end }}
  {{- if .Values.hostNetwork }}
  hostNetwork: true
  {{- end }}
  {{- with default (ternary "ClusterFirstWithHostNet" "" .Values.hostNetwork) .Values.dnsPolicy }}
  dnsPolicy: {{ . }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $context := dict "seccompProfile" (dict "type" "RuntimeDefault") "runAsNonRoot" (not $asRoot) -}}
  {{- if $asRoot }}
  {{- $_ := set $context "runAsUser" 0 }}
  {{- $_ := set $context "runAsGroup" 0 }}
  {{- else }}
  {{- $_ := set $context "runAsUser" 65532 }}
  {{- $_ := set $context "runAsGroup" 65532 }}
  {{- end }}
  {{- if eq $low "Sysctl" }}
  {{- $_ := set $context "sysctls" (list (dict "name" "net.ipv4.ip_unprivileged_port_start" "value" "0")) }}
  {{- end }}
  securityContext:
    {{- toYaml (mustMergeOverwrite $context .Values.podSecurityContext) | nindent 4 }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "mailgress.spread" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: mailgress
      image: {{ include "mailgress.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - run
        {{- with .Values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        {{- include "mailgress.env" . | nindent 8 }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: admin
          containerPort: {{ int .Values.admin.port }}
          protocol: TCP
        {{- range .Values.hostPorts }}
        - name: mail-{{ int . }}
          containerPort: {{ int . }}
          hostPort: {{ int . }}
          protocol: TCP
        {{- end }}
      {{- $startup := dict "httpGet" (dict "path" "/livez" "port" "admin") "periodSeconds" 1 "failureThreshold" 60 }}
      {{- $liveness := dict "httpGet" (dict "path" "/livez" "port" "admin") "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 6 }}
      {{- $readiness := dict "httpGet" (dict "path" "/readyz" "port" "admin") "periodSeconds" 5 "timeoutSeconds" 5 "failureThreshold" 2 }}
      startupProbe:
        {{- toYaml (mustMergeOverwrite $startup .Values.startupProbe) | nindent 8 }}
      livenessProbe:
        {{- toYaml (mustMergeOverwrite $liveness .Values.livenessProbe) | nindent 8 }}
      readinessProbe:
        {{- toYaml (mustMergeOverwrite $readiness .Values.readinessProbe) | nindent 8 }}
      {{- with .Values.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- $capabilities := dict "drop" (list "ALL") }}
      {{- if $asRoot }}
      {{- $_ := set $capabilities "add" (list "NET_BIND_SERVICE") }}
      {{- end }}
      {{- $container := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" $capabilities }}
      securityContext:
        {{- toYaml (mustMergeOverwrite $container .Values.securityContext) | nindent 8 }}
      {{- if or .Values.controlSocket.enabled .Values.extraVolumeMounts }}
      volumeMounts:
        {{- if .Values.controlSocket.enabled }}
        - name: control
          mountPath: /run/mailgress
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or .Values.controlSocket.enabled .Values.extraVolumes }}
  volumes:
    {{- if .Values.controlSocket.enabled }}
    - name: control
      emptyDir:
        medium: Memory
        sizeLimit: 1Mi
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end -}}

{{/* The flags of `mailgress run`, each by its variable, so that a patch can change one. */}}
{{- define "mailgress.env" -}}
{{- $name := include "mailgress.fullname" . -}}
{{- $namespace := include "mailgress.namespace" . -}}
- name: MAILGRESS_CLASS
  value: {{ .Values.className | quote }}
{{- with .Values.namespaces }}
- name: MAILGRESS_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
- name: MAILGRESS_LEASE
  value: {{ printf "%s/%s" $namespace $name | quote }}
{{- if and .Values.service.enabled .Values.service.managePorts }}
- name: MAILGRESS_SERVICE
  value: {{ printf "%s/%s" $namespace $name | quote }}
{{- end }}
- name: MAILGRESS_REPLICAS
  value: {{ printf "%s/%s-replicas" $namespace $name | quote }}
{{- with .Values.proxyProtocol.trustedPeers }}
- name: MAILGRESS_PROXY_PROTOCOL_TRUSTED_PEERS
  value: {{ join "," . | quote }}
{{- end }}
- name: MAILGRESS_ADMIN_ADDRESS
  value: {{ printf (ternary "[%s]:%d" "%s:%d" (contains ":" .Values.admin.address)) .Values.admin.address (int .Values.admin.port) | quote }}
{{- with .Values.admin.status }}
- name: MAILGRESS_STATUS_ADDRESS
  value: {{ printf (ternary "[%s]:%d" "%s:%d" (contains ":" .address)) .address (int .port) | quote }}
{{- end }}
{{- $hosts := list }}
{{- if .Values.admin.service.enabled }}
{{- range list "" (printf ".%s" $namespace) (printf ".%s.svc" $namespace) (printf ".%s.svc.cluster.local" $namespace) }}
{{- $hosts = append $hosts (printf "%s-admin%s" $name .) }}
{{- end }}
{{- end }}
{{- with concat $hosts .Values.admin.hosts }}
- name: MAILGRESS_ADMIN_HOSTS
  value: {{ join "," . | quote }}
{{- end }}
{{- if .Values.controlSocket.enabled }}
- name: MAILGRESS_CONTROL_SOCKET
  value: /run/mailgress/control.sock
{{- end }}
- name: MAILGRESS_DRAIN_DELAY
  value: {{ .Values.drain.delay | quote }}
- name: MAILGRESS_DRAIN_TIMEOUT
  value: {{ .Values.drain.timeout | quote }}
{{- with .Values.drain.spread }}
- name: MAILGRESS_DRAIN_SPREAD
  value: {{ . | quote }}
{{- end }}
- name: MAILGRESS_READY_TIMEOUT
  value: {{ .Values.readyTimeout | quote }}
- name: MAILGRESS_LOG_FORMAT
  value: {{ .Values.log.format | quote }}
- name: MAILGRESS_LOG
  value: {{ .Values.log.level | quote }}
{{- with .Values.workers }}
- name: MAILGRESS_WORKERS
  value: {{ int . | quote }}
{{- end }}
- name: MAILGRESS_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: MAILGRESS_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: MAILGRESS_NODE_ADDRESS
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
- name: MAILGRESS_ZONE
{{- if .Values.zone }}
  value: {{ .Values.zone | quote }}
{{- else }}
  # Empty before Kubernetes 1.35; then the node is asked.
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['topology.kubernetes.io/zone']
{{- end }}
{{- end -}}

{{- define "mailgress.spread" -}}
{{- $selector := dict "matchLabels" (include "mailgress.podSelector" . | fromYaml) -}}
{{- $constraints := list -}}
{{- if .Values.topologySpreadConstraints -}}
{{- range .Values.topologySpreadConstraints -}}
{{- $constraints = append $constraints (mustMerge (dict) . (dict "labelSelector" $selector)) -}}
{{- end -}}
{{- else if eq .Values.kind "Deployment" -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" -}}
{{- $constraints = append $constraints (dict "maxSkew" 1 "topologyKey" . "whenUnsatisfiable" "ScheduleAnyway" "labelSelector" $selector "matchLabelKeys" (list "pod-template-hash")) -}}
{{- end -}}
{{- end -}}
{{- with $constraints -}}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}
