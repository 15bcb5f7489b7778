{{- define "labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "image" -}}
{{ .Values.image.registry }}/{{ .Values.image.repository }}:{{ .Chart.AppVersion }}
{{- end }}
{{- define "restricted" -}}
runAsNonRoot: true
runAsUser: 999
runAsGroup: 999
allowPrivilegeEscalation: false
privileged: false
seccompProfile:
  type: RuntimeDefault
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
