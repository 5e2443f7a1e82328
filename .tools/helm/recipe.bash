module=helm.sh/helm/v3
packages=(tool)
usual_time='about 2 minutes'
