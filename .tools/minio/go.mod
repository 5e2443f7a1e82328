// MinIO: the S3 store of the test bed.
module vixens-backup.test/tools/minio

go 1.24.0

tool github.com/minio/minio

require github.com/minio/minio v0.0.0-20260212201848-7aac2a2c5b7c
