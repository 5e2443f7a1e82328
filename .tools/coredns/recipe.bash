module=github.com/coredns/coredns
packages=(.)
usual_time='1 minute'
