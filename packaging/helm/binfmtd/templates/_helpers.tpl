{{/* The labels of each object: kustomize's one, and those that Helm's documentation recommends. */}}
{{- define "binfmtd.labels" -}}
app.kubernetes.io/name: binfmtd
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{/* An image's name, of a dictionary with `image` and the tag to use without one: REPOSITORY@DIGEST if it has a digest. */}}
{{- define "binfmtd.image" -}}
{{- if .image.digest -}}
{{ printf "%s@%s" .image.repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" .image.repository (.image.tag | default .tag) }}
{{- end -}}
{{- end }}
