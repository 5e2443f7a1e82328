module=github.com/minio/minio
packages=(tool)
usual_time='2 minutes'
