// The process that holds a pod's namespaces open. Kubernetes' own is written in C
// and comes as an image only.
module vixens-backup.test/tools/pause

go 1.24.0
