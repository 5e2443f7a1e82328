module=github.com/coredns/coredns
packages=(.)
usual_time='about 1 minute'
