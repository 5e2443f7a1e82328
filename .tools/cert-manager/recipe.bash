module=github.com/cert-manager/cert-manager
packages=(.)
files=deploy/crds
usual_time='about 3 minutes'
