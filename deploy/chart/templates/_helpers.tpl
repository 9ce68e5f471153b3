{{/* What every object is called. */}}
{{- define "xdp-ingress.name" -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects our pods; never changes. */}}
{{- define "xdp-ingress.selector" -}}
app.kubernetes.io/name: {{ include "xdp-ingress.name" . }}
{{- end -}}

{{- define "xdp-ingress.labels" -}}
{{ include "xdp-ingress.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "xdp-ingress.membershipSecret" -}}
{{- .Values.membership.existingSecret | default (printf "%s-membership" (include "xdp-ingress.name" .)) -}}
{{- end -}}
