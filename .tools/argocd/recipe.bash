module=github.com/argoproj/argo-cd/v3
packages=(.)
variables=(github.com/argoproj/argo-cd/v3/common.version=@VERSION@)
files=manifests/crds
usual_time='about 4 minutes'
