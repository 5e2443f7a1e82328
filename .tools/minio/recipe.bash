module=github.com/minio/minio
packages=(tool)
usual_time='about 2 minutes'
