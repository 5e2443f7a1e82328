module=github.com/rhysd/actionlint
packages=(tool)
variables=(github.com/rhysd/actionlint.version=@VERSION@)
usual_time='about 20 seconds'
