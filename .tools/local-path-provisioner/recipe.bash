module=github.com/rancher/local-path-provisioner
packages=(tool)
variables=(main.VERSION=@VERSION@)
usual_time='about 1 minute'
