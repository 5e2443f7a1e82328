module=go.etcd.io/etcd/server/v3
packages=(tool)
renamed=(server=etcd)
usual_time='about 30 seconds'
