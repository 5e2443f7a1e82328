module=github.com/kyverno/kyverno
packages=(tool)
variables=(github.com/kyverno/kyverno/pkg/version.BuildVersion=@VERSION@)
files=config/crds
usual_time='about 5 minutes'
