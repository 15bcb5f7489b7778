{{- define "labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "image" -}}
{{ .Values.image.registry }}/{{ .Values.image.repository }}:{{ .Chart.AppVersion }}
{{- end }}
