module=k8s.io/kubernetes
packages=(tool)
variables=(
	k8s.io/component-base/version.gitVersion=@VERSION@
	k8s.io/component-base/version.gitMajor=@MAJOR@
	k8s.io/component-base/version.gitMinor=@MINOR@
)
usual_time='about 5 minutes'
