module=sigs.k8s.io/kustomize/kustomize/v5
packages=(tool)
usual_time='about 30 seconds'
